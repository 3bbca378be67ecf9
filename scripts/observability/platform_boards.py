"""Dashboards of what it all runs on: backbone, objectives, privacy, high availability."""

from scripts.observability.alerts import SPENT
from scripts.observability.objectives import BURNS, OBJECTIVES, PERIOD, recorded
from scripts.observability.panels import Board, Shown, lines, number, text

_W = "$__rate_interval"

BACKBONE = Board(
    name="backbone",
    title="Flowerbed: backbone",
    says="How far behind events are, and what could not be handled.",
    rows=(
        (
            "Now",
            (
                number(
                    "Dead letters waiting",
                    "sum(max by (service, consumer) (dead_letters_waiting))",
                    "`flowerbed dead-letters list` shows them.",
                    bad_from=1,
                ),
                number(
                    "Events not published",
                    "sum(max by (service) (outbox_lag_events))",
                    "Recorded in Postgres and not yet in JetStream.",
                    bad_from=100,
                ),
                number(
                    "Events not handled",
                    "sum(max by (service, consumer) (projection_lag_events))",
                    "Over all consumers. Returns to 0 within a second in a healthy stack.",
                    bad_from=100,
                ),
                number(
                    "Handed over again in an hour",
                    "sum(increase(consumer_redeliveries_total[1h]))",
                    "Some are normal after a restart.",
                ),
            ),
        ),
        (
            "Over time",
            (
                lines(
                    "Events not published, by service",
                    ("max by (service) (outbox_lag_events)", "{{service}}"),
                    says="The relay's lag.",
                ),
                lines(
                    "Events not handled, by consumer",
                    (
                        "max by (service, consumer) (projection_lag_events)",
                        "{{service}} {{consumer}}",
                    ),
                    says="One that rises and does not fall has stopped, or is parked.",
                ),
                lines(
                    "Handed over again per minute",
                    (
                        "60 * sum by (service, consumer)"
                        f" (rate(consumer_redeliveries_total[{_W}])) > 0",
                        "{{service}} {{consumer}}",
                    ),
                    says="An event that fails is tried again, and is a dead letter in the end.",
                ),
                lines(
                    "Dead letters",
                    (
                        "max by (service, consumer) (dead_letters_waiting) > 0",
                        "{{service}} {{consumer}}",
                    ),
                    says="Each parks one federation at one consumer.",
                ),
            ),
        ),
        (
            "Webhooks",
            (
                lines(
                    "Deliveries per minute, by outcome",
                    (
                        f"60 * sum by (outcome) (rate(webhook_deliveries_total[{_W}]))",
                        "{{outcome}}",
                    ),
                    says="Attempts: one that fails is tried again later.",
                ),
            ),
        ),
        (
            "Processes",
            (
                lines(
                    "Processor time",
                    (
                        f'rate(process_cpu_seconds_total{{job="flowerbed"}}[{_W}])',
                        "{{replica}}",
                    ),
                    says="Cores that each replica uses.",
                ),
                lines(
                    "Memory",
                    ('process_resident_memory_bytes{job="flowerbed"}', "{{replica}}"),
                    says="Resident, by replica.",
                    unit="bytes",
                ),
            ),
        ),
    ),
)


def _left() -> tuple[Shown, ...]:
    return tuple(
        number(
            f"Error budget left: {one.name}",
            f'1 - {recorded(PERIOD)}{{slo="{one.name}"}} / {one.budget:g}',
            f"Of 30 days. The objective: {one.target:.0%} of {one.means}.",
            unit="percentunit",
        )
        for one in OBJECTIVES
    )


def _burns() -> tuple[Shown, ...]:
    return tuple(
        lines(
            f"Speed at which the budget is spent: {one.name}",
            *(
                (f'{recorded(window)}{{slo="{one.name}"}} / {one.budget:g}', window)
                for window in dict.fromkeys(w for burn in BURNS for w in (burn.long, burn.short))
            ),
            says="At 1 the budget of 30 days lasts 30 days. Alerts fire at "
            + ", ".join(f"{burn.factor:g} ({burn.long} and {burn.short})" for burn in BURNS)
            + ".",
        )
        for one in OBJECTIVES
    )


OBJECTIVES_BOARD = Board(
    name="slo",
    title="Flowerbed: objectives",
    says="What was promised, and how much of the error budget is left.",
    rows=(("Left of 30 days", _left()), ("Burn rates", _burns())),
)

PRIVACY = Board(
    name="privacy",
    title="Flowerbed: privacy",
    says="What is known of privacy today: little, and it says so.",
    rows=(
        (
            "Privacy budget",
            (
                number(
                    "Most that is spent of a budget",
                    f"max({SPENT})",
                    "Epsilon spent by its limit, of the federation nearest to it.",
                    unit="percentunit",
                    bad_from=0.8,
                ),
                lines(
                    "Spent, by tenant",
                    (SPENT, "{{tenant}}"),
                    says="Alerts come at 80 % and past 100 %.",
                    unit="percentunit",
                ),
                text(
                    "Where there is nothing to see",
                    "Only a federation that adds noise to updates spends a budget. Flowerbed adds"
                    " none yet, so these panels are empty. Below is what guards sites' data today.",
                ),
            ),
        ),
        (
            "What is screened",
            (
                lines(
                    "Updates not accepted per hour",
                    (
                        "sum by (exchange, verdict)"
                        ' (increase(fl_updates_total{verdict!="accepted"}[1h]))',
                        "{{exchange}} {{verdict}}",
                    ),
                    says="Wrong shapes, values that are not finite, norms or claims out of bounds.",
                ),
                lines(
                    "Leases that sites declined per hour",
                    ("sum(increase(fl_client_joins_failed_total[1h]))", "declined"),
                    says="A site checks each manifest, and the code it is to run, before it takes"
                    " part.",
                ),
            ),
        ),
    ),
)

HA = Board(
    name="ha",
    title="Flowerbed: high availability",
    says="Which replicas answer, who leads, what was started again.",
    rows=(
        (
            "Replicas",
            (
                lines(
                    "Replicas that answer",
                    ('sum by (service) (up{job="flowerbed"})', "{{service}}"),
                    says="By service. `flowerbed up --replicas N` sets how many there are.",
                ),
                lines(
                    "Replicas that do not answer",
                    ('up{job="flowerbed"} == 0', "{{replica}}"),
                    says="Empty when all is well.",
                ),
                lines(
                    "Started again per hour",
                    (
                        'changes(process_start_time_seconds{job="flowerbed"}[1h]) > 0',
                        "{{replica}}",
                    ),
                    says="Each change of a process's start time is a restart.",
                ),
                lines(
                    "Age of each process",
                    (
                        'time() - process_start_time_seconds{job="flowerbed"}',
                        "{{replica}}",
                    ),
                    says="A line that falls to 0 is a restart.",
                    unit="s",
                ),
            ),
        ),
        (
            "Roles",
            (
                lines(
                    "Roles that each replica holds",
                    ('sum by (replica) (flowerbed_leads{job="flowerbed"})', "{{replica}}"),
                    says="Relay, consumers, sweepers and partitions. They move when a replica"
                    " comes or goes.",
                ),
                lines(
                    "Roles that nobody holds",
                    ("sum by (service, role) (flowerbed_leads) == 0", "{{service}} {{role}}"),
                    says="Empty but for seconds when a replica goes.",
                ),
            ),
        ),
    ),
)

BOARDS = (BACKBONE, OBJECTIVES_BOARD, PRIVACY, HA)
