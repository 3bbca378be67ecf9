"""What a person is told or woken for.

Replicas that tell the same fact are joined by `max`; counters are summed.
"""

from scripts.observability.rules import Alert

FEDERATIONS = (
    Alert(
        name="FlowerbedFederationWithoutProgress",
        expr="time() - max by (tenant) (fl_federation_last_progress_timestamp_seconds) > 900",
        wait="5m",
        severity="warning",
        summary="A federation of tenant {{ $labels.tenant }} stands still",
        description=(
            "No round, update, aggregate or artifact of it was recorded for"
            " {{ $value | humanizeDuration }}. It waits for clients, for an answer, or for one of"
            " the services."
        ),
    ),
    Alert(
        name="FlowerbedRoundsOverBudget",
        expr=(
            "histogram_quantile(0.95,"
            " sum by (le) (rate(fl_round_budget_used_ratio_bucket[1h]))) > 0.75"
        ),
        wait="10m",
        severity="warning",
        summary="One round in twenty takes over {{ $value | humanizePercentage }} of its time",
        description=(
            "The 95th percentile of the last hour's rounds is above three quarters of what their"
            " deadlines for training and evaluation allow. The next slow site makes a round end"
            " without it, or fail."
        ),
    ),
    Alert(
        name="FlowerbedJoinsFail",
        expr="sum by (reason) (increase(fl_client_joins_failed_total[30m])) > 0",
        severity="warning",
        summary="Clients do not join: {{ $labels.reason }}",
        description=(
            "In the last half hour a site declined a lease, or claimed it with something that the"
            " federation does not admit. The reason given is {{ $labels.reason }}."
        ),
    ),
    Alert(
        name="FlowerbedClientsDrop",
        expr="sum(increase(fl_clients_dropped_total[10m])) > 5",
        severity="warning",
        summary="Many clients fall silent",
        description=(
            "About {{ $value | humanize }} leases ended within ten minutes because their clients"
            " were not heard of for as long as a lease allows. One site that is off does not do"
            " this; look at the network and at the client door."
        ),
    ),
    Alert(
        name="FlowerbedArtifactsRefused",
        expr="sum(increase(fl_artifacts_refused_total[1h])) > 0",
        severity="critical",
        summary="A checkpoint in S3 is missing, or is not what it should be",
        description=(
            "Within the last hour an aggregate was refused because its objects are gone or have"
            " another digest. Its federation waits until someone has looked."
        ),
    ),
)

BACKBONE = (
    Alert(
        name="FlowerbedServiceDown",
        expr='up{job="flowerbed"} == 0',
        wait="1m",
        severity="critical",
        summary="{{ $labels.replica }} does not answer",
        description=(
            "{{ $labels.replica }} at {{ $labels.instance }} has not answered for a minute. Another"
            " replica goes on where there is one; without one, what the service owns stands still."
        ),
    ),
    Alert(
        name="FlowerbedNobodyLeads",
        expr="sum by (service, role) (flowerbed_leads) == 0",
        wait="1m",
        severity="critical",
        summary="Nobody does the work of {{ $labels.role }} in {{ $labels.service }}",
        description=(
            "For a minute no replica of {{ $labels.service }} has held the role"
            " {{ $labels.role }}. Roles move to another replica within seconds; this one did not."
        ),
    ),
    Alert(
        name="FlowerbedDeadLetters",
        expr="max by (service, consumer) (dead_letters_waiting) > 0",
        wait="1m",
        severity="critical",
        summary="{{ $value }} dead letters wait at {{ $labels.consumer }}",
        description=(
            "{{ $labels.service }} could not handle an event, and put it aside with all that"
            " follows in the same federation. Until they are replayed, that federation does not"
            " go on here."
        ),
    ),
    Alert(
        name="FlowerbedConsumerBacklog",
        expr="max by (service, consumer) (projection_lag_events) > 100",
        wait="5m",
        severity="warning",
        summary="{{ $labels.consumer }} is {{ $value }} events behind",
        description=(
            "{{ $labels.service }} has had more than 100 events to handle for five minutes. In a"
            " healthy stack none is left after a second."
        ),
    ),
    Alert(
        name="FlowerbedRelayLag",
        expr="max by (service) (outbox_lag_events) > 100",
        wait="2m",
        severity="warning",
        summary="{{ $value }} events of {{ $labels.service }} are not published",
        description=(
            "They are safe in Postgres, and no other service knows of them yet. NATS is away or"
            " full, or no replica has the relay."
        ),
    ),
)

SPENT = "max by (tenant) (fl_privacy_epsilon_spent) / max by (tenant) (fl_privacy_epsilon_limit)"
"""Both are of the federation of the tenant that is nearest to its limit."""

PRIVACY = (
    Alert(
        name="FlowerbedPrivacyBudgetNearLimit",
        expr=f"{SPENT} > 0.8",
        severity="warning",
        summary="{{ $value | humanizePercentage }} of a privacy budget is spent",
        description=(
            "A federation of tenant {{ $labels.tenant }} comes near to the epsilon that its data's"
            " owners agreed to. Its last rounds are those that are still within it."
        ),
    ),
    Alert(
        name="FlowerbedPrivacyBudgetSpent",
        expr=f"{SPENT} > 1",
        severity="critical",
        summary="A privacy budget of tenant {{ $labels.tenant }} is overspent",
        description=(
            "The epsilon spent is {{ $value | humanizePercentage }} of its limit. What was promised"
            " to the owners of the data does not hold any more: nothing further may be trained on"
            " it."
        ),
    ),
)

CERTIFICATES = (
    Alert(
        name="FlowerbedClientCertificateExpires",
        expr=("max by (tenant) (fl_client_certificate_expiry_timestamp_seconds) - time() < 86400"),
        wait="10m",
        severity="warning",
        summary="A certificate of tenant {{ $labels.tenant }} ends within a day",
        description=(
            "It ends in {{ $value | humanizeDuration }}. Agents renew at two thirds of a"
            " certificate's life, so this one is off or does not reach the client door. Once its"
            " certificate has ended, it needs a new invite."
        ),
    ),
    Alert(
        name="FlowerbedClientCertificatesExpired",
        expr="max(fl_client_certificates_expired) > 0",
        wait="10m",
        severity="info",
        summary="{{ $value }} enrolled clients hold a certificate that has ended",
        description=(
            "They cannot come back by themselves. Invite those again that shall come back, and"
            " revoke the others: that ends this alert."
        ),
    ),
    Alert(
        name="FlowerbedServerCertificateExpires",
        expr="min by (kind) (fl_server_certificate_expiry_timestamp_seconds) - time() < 1209600",
        severity="critical",
        summary="The control plane's own certificate ends: {{ $labels.kind }}",
        description=(
            "It ends in {{ $value | humanizeDuration }}; from then on no site connects. `flowerbed"
            " up` on a stopped stack renews that of the doors. Another authority means that every"
            " site enrols anew."
        ),
    ),
)
