// What a person can do to a federation. Each asks once, and says what will happen.
import { post } from "../data/api.js";
import { ENDED } from "../data/list.js";
import { may } from "../data/who.js";
import { short } from "../format.js";
import { useKeys } from "../shell.js";
import { confirm, Reason } from "../ui/dialog.js";
import { Icon } from "../ui/icons.js";
import { toast } from "../ui/toasts.js";
import { html } from "../ui/view.js";

const path = (id, verb) => `/federations/${encodeURIComponent(id)}/${verb}`;

const COMMANDS = {
  pause: {
    title: "Pause this federation?", verb: "Pause", icon: "pause", key: "p",
    says: "No new round starts until somebody resumes it. An open round may still end. After 30 days it fails.",
    may: (status) => status === "running" || status === "created",
  },
  resume: {
    title: "Resume this federation?", verb: "Resume", icon: "play", key: "r",
    says: "The next round starts as soon as enough clients are joined.",
    may: (status) => status === "paused",
  },
  cancel: {
    title: "Cancel this federation?", verb: "Cancel it for good", icon: "stop", key: "c", danger: true,
    says: "It ends now and cannot be started again. Leases are released; checkpoints and history stay.",
    may: (status) => !ENDED.includes(status) && status !== "submitted",
  },
};

function ask(name, id) {
  const command = COMMANDS[name];
  confirm({
    ...command,
    fields: name === "resume" ? null : html`<${Reason} />`,
    run: async ({ reason = "" }) => {
      await post(path(id, name), { reason });
      toast("ok", `${command.verb.split(" ")[0]}: the gateway has taken the command`);
    },
  });
}

export function Buttons({ store, view }) {
  const { status } = view.federation;
  const past = store.then.value !== null;
  if (past) return null;
  const newest = newestCheckpoint(view);
  if (status === "rejected" || !may("operator", view.federation.tenant)) return null;
  return html`<div class="page-head-end" role="group" aria-label="Commands">
    ${Object.entries(COMMANDS).filter(([name, one]) => one.may(status) || (name === "pause" && !ENDED.includes(status) && status !== "paused"))
      .map(([name, one]) => html`<button type="button" class="button ${one.danger ? "danger" : ""}" disabled=${!one.may(status)}
        onClick=${() => ask(name, store.id)}><${Icon} name=${one.icon} />${one.verb.split(" ")[0]}</button>`)}
    <button type="button" class="button primary" disabled=${!newest} onClick=${() => promote(store.id, newest)}>
      <${Icon} name="star" />Promote</button>
  </div>`;
}

export function useCommandKeys(store) {
  const keys = {};
  for (const [name, one] of Object.entries(COMMANDS)) {
    keys[one.key] = () => {
      const { status, tenant } = store.live.value?.federation || {};
      if (status && may("operator", tenant) && !store.then.value && one.may(status)) ask(name, store.id);
    };
  }
  useKeys(keys);
}

function newestCheckpoint(view) {
  return Object.values(view.artifacts)
    .filter((one) => one.kind === "checkpoint" && !one.revoked_at)
    .sort((one, other) => other.round_number - one.round_number)[0];
}

export function promote(id, artifact) {
  confirm({
    title: `Promote checkpoint ${short(artifact.sha256)}?`,
    says: `The checkpoint of round ${artifact.round_number} becomes the current one of the channel. What was current before stays recorded.`,
    verb: "Promote",
    fields: html`<label class="field">Channel
      <input class="input" name="channel" value="stable" required pattern="[a-z0-9]([a-z0-9\\-]{0,61}[a-z0-9])?"
        title="Lower-case letters, digits and -" autocomplete="off" /></label>`,
    run: async ({ channel }) => {
      await post(`/artifacts/${artifact.sha256}/promote`, { channel, federation_id: id });
      toast("ok", `${short(artifact.sha256)} is now ${channel}`);
    },
  });
}
