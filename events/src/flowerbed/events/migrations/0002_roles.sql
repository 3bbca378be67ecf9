-- Who leads, as an epoch a role: it rises whenever a replica takes the role.
-- Whoever took it waits for the transactions of the one before (the lock), and those that begin
-- later see the new epoch (each statement in a volatile function has a snapshot of its own).

CREATE TABLE roles (
    role text PRIMARY KEY,
    epoch bigint NOT NULL
);
REVOKE DELETE, TRUNCATE ON roles FROM :app;

CREATE FUNCTION take_role(wanted text) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    taken bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('flowerbed.fence.' || wanted, 0));
    INSERT INTO roles AS known (role, epoch) VALUES (wanted, 1)
    ON CONFLICT (role) DO UPDATE SET epoch = known.epoch + 1
    RETURNING epoch INTO taken;
    RETURN taken;
END
$function$;

CREATE FUNCTION enter_role(wanted text, held bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('flowerbed.fence.' || wanted, 0));
    RETURN EXISTS (SELECT FROM roles WHERE role = wanted AND epoch = held);
END
$function$;
