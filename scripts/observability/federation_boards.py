"""Dashboards of what is trained: federations, rounds, clients."""

from scripts.observability.panels import Board, lines, number

_W = "$__rate_interval"


def _quantiles(histogram: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({q}, sum by (le) (rate({histogram}_bucket[{_W}])))", f"p{q * 100:g}")
        for q in (0.5, 0.95, 0.99)
    )


_STILL = "time() - max by (tenant) (fl_federation_last_progress_timestamp_seconds)"

FEDERATIONS = Board(
    name="federations",
    title="Flowerbed: federations",
    says="Where all federations stand, and which stand still.",
    rows=(
        (
            "Now",
            (
                number(
                    "Running",
                    'max(fl_federations{status="running"})',
                    "Federations with a round open, or about to open one.",
                ),
                number(
                    "Waiting to start",
                    'sum(max by (status) (fl_federations{status=~"submitted|created"}))',
                    "Accepted, and waiting for clients or for the base checkpoint.",
                ),
                number(
                    "Standing still for",
                    f"max({_STILL})",
                    "The longest that an open federation has recorded no round, update, aggregate"
                    " or artifact. An alert fires at 15 minutes.",
                    unit="s",
                    bad_from=900,
                ),
                number(
                    "Failed in a day",
                    'sum(increase(fl_federations_ended_total{how="failed"}[1d]))',
                    "`flowerbed federation show ID` tells the reason.",
                    bad_from=1,
                ),
            ),
        ),
        (
            "Over time",
            (
                lines(
                    "Federations by state",
                    ("max by (status) (fl_federations)", "{{status}}"),
                    says="Replicas of the gateway read one database: the greatest of them counts.",
                ),
                lines(
                    "Standing still, by tenant",
                    (_STILL, "{{tenant}}"),
                    says="At most 50 tenants have a line of their own; the others share one.",
                    unit="s",
                ),
                lines(
                    "Ended, per hour",
                    ("sum by (how) (increase(fl_federations_ended_total[1h]))", "{{how}}"),
                    says="Completed, failed, cancelled, or refused as a document.",
                ),
                lines(
                    "Artifacts recorded per minute",
                    (f"60 * sum by (kind) (rate(fl_artifacts_written_total[{_W}]))", "{{kind}}"),
                    says="Read back from S3, hashed and recorded.",
                ),
            ),
        ),
    ),
)

ROUNDS = Board(
    name="rounds",
    title="Flowerbed: rounds",
    says="How rounds go and where their time goes.",
    rows=(
        (
            "Rounds",
            (
                lines(
                    "Rounds per minute",
                    (f"60 * sum(rate(fl_rounds_started_total[{_W}]))", "attempts started"),
                    (f"60 * sum(rate(fl_rounds_completed_total[{_W}]))", "completed"),
                    (f"60 * sum(rate(fl_rounds_failed_total[{_W}]))", "attempts failed"),
                    says="An attempt that fails is followed by another while the policy allows it.",
                ),
                lines(
                    "Duration of a round",
                    *_quantiles("fl_round_duration_seconds"),
                    says="From its start to its evaluated checkpoint.",
                    unit="s",
                ),
                lines(
                    "Part of its deadlines that a round used",
                    *_quantiles("fl_round_budget_used_ratio"),
                    says="Of the deadlines for its training and its evaluation together. An alert"
                    " fires when one round in twenty uses more than three quarters.",
                    unit="percentunit",
                ),
                lines(
                    "From aggregate to artifact",
                    *_quantiles("fl_artifact_availability_seconds"),
                    says="Until the checkpoint is read back, hashed and recorded.",
                    unit="s",
                ),
            ),
        ),
        (
            "Updates and the fold",
            (
                lines(
                    "Updates judged per minute",
                    (
                        f"60 * sum by (exchange, verdict) (rate(fl_updates_total[{_W}]))",
                        "{{exchange}} {{verdict}}",
                    ),
                    says="Rejected ones are in the federation's events with a code.",
                ),
                lines(
                    "Exchanges that ended per minute",
                    (
                        f"60 * sum by (exchange, outcome) (rate(fl_aggregates_total[{_W}]))",
                        "{{exchange}} {{outcome}}",
                    ),
                    says="Training, evaluation, and the making of a base.",
                ),
                lines(
                    "Time to fold and store",
                    (
                        "histogram_quantile(0.95, sum by (le, exchange)"
                        f" (rate(fl_aggregate_duration_seconds_bucket[{_W}])))",
                        "{{exchange}} p95",
                    ),
                    says="What the aggregator itself spends on an exchange.",
                    unit="s",
                ),
                lines(
                    "Artifacts refused per hour",
                    ("sum(increase(fl_artifacts_refused_total[1h]))", "refused"),
                    says="Objects in S3 that are missing or have another digest. Always 0 in a"
                    " healthy stack.",
                ),
            ),
        ),
    ),
)

_TENANT = "{{tenant}} {{exchange}}"

WORK = Board(
    name="work",
    title="Flowerbed: tokens and energy",
    says="What sites measured of their training, and nothing else: what nobody measured is no"
    " line.",
    rows=(
        (
            "Last round",
            (
                lines(
                    "Tokens per second",
                    ("sum by (tenant, exchange) (fl_tokens_per_second)", _TENANT),
                    says="In the apps, all clients of a round together.",
                ),
                lines(
                    "Power",
                    ("sum by (tenant, exchange) (fl_power_watts)", _TENANT),
                    says="Of those sites whose machine has a counter, while their apps ran.",
                    unit="watt",
                ),
                lines(
                    "Energy of a round",
                    ("sum by (tenant, exchange) (fl_round_joules)", _TENANT),
                    says="Joules that sites measured.",
                    unit="joule",
                ),
                lines(
                    "Watts for one token a second",
                    ("max by (tenant, exchange) (fl_watts_per_token)", _TENANT),
                    says="The same as joules a token. Sites that count both are in it.",
                ),
            ),
        ),
        (
            "Over time",
            (
                lines(
                    "Tokens per hour",
                    ("sum by (tenant) (increase(fl_tokens_total[1h]))", "{{tenant}}"),
                    says="In updates that were accepted, as apps counted them.",
                ),
                lines(
                    "Energy per hour",
                    ("sum by (tenant) (increase(fl_joules_total[1h]))", "{{tenant}}"),
                    says="Of updates that were accepted.",
                    unit="joule",
                ),
                lines(
                    "Updates without a measured energy per hour",
                    (
                        "sum by (reason) (increase(fl_updates_without_energy_total[1h]))",
                        "{{reason}}",
                    ),
                    says="By why: most often the machine has no counter, or nobody may read it.",
                ),
            ),
        ),
    ),
)

CLIENTS = Board(
    name="clients",
    title="Flowerbed: clients",
    says="Who is there, who does not join, and whose certificate ends.",
    rows=(
        (
            "Now",
            (
                number(
                    "Enrolled",
                    'max(fl_clients{status="enrolled"})',
                    "Clients that have used their invite and are not revoked.",
                ),
                number(
                    "Joined now",
                    'max(fl_leases{status="joined"})',
                    "Leases held in federations that are open. A client may hold several.",
                ),
                number(
                    "First certificate ends in",
                    "min(max by (tenant) (fl_client_certificate_expiry_timestamp_seconds))"
                    " - time()",
                    "Agents renew at two thirds of its life.",
                    unit="s",
                ),
                number(
                    "Certificates that have ended",
                    "max(fl_client_certificates_expired)",
                    "Enrolled clients that need a new invite, or are to be revoked.",
                    bad_from=1,
                ),
            ),
        ),
        (
            "Over time",
            (
                lines(
                    "Leases in open federations",
                    ("max by (status) (fl_leases)", "{{status}}"),
                    says="Issued ones are offered and not taken up yet.",
                ),
                lines(
                    "Clients by state",
                    ("max by (status) (fl_clients)", "{{status}}"),
                    says="Invited, enrolled, revoked.",
                ),
                lines(
                    "Joining and leaving per minute",
                    (f"60 * sum(rate(fl_leases_offered_total[{_W}]))", "leases offered"),
                    (f"60 * sum(rate(fl_clients_joined_total[{_W}]))", "joined"),
                    (f"60 * sum(rate(fl_clients_dropped_total[{_W}]))", "fell silent"),
                    says="A client that was dropped is offered a new lease when it comes back.",
                ),
                lines(
                    "Joins that failed per hour, by reason",
                    (
                        "sum by (reason) (increase(fl_client_joins_failed_total[1h])) > 0",
                        "{{reason}}",
                    ),
                    says="What the sites gave as the reason; codes that nobody knows are `other`.",
                ),
            ),
        ),
    ),
)

BOARDS = (FEDERATIONS, ROUNDS, CLIENTS, WORK)
