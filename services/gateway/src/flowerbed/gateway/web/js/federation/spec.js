// The spec, as YAML with its colours. Drawn from the document that was recorded, key by key.
import { copy, Panel } from "../ui/parts.js";
import { Icon } from "../ui/icons.js";
import { html } from "../ui/view.js";

const NOTE = "As submitted, with every default written out; a changed round policy is shown as it is now";

export function SpecPanel({ view }) {
  const { spec } = view.federation;
  const { problems } = view.federation;
  if (!spec) return html`<${Panel} id="spec" title="Why the spec was refused" note="Each broken rule: where, what was found, what is allowed">
    <${Problems} problems=${problems} /><//>`;
  const text = lines(spec).map(plain).join("\n");
  return html`<${Panel} id="spec" title="Spec" note=${problems?.length ? "As submitted, and refused" : NOTE}
      more=${html`<button type="button" class="button tight" onClick=${() => copy(`${text}\n`, "The spec")}><${Icon} name="copy" />Copy</button>`}>
    <${Problems} problems=${problems} />
    <pre class="yaml" tabindex="0" role="region" aria-label="The spec as YAML">${lines(spec).map((line) => html`<${Line} line=${line} />`)}</pre><//>`;
}

function Problems({ problems }) {
  if (!problems?.length) return null;
  return html`<ul class="inner problems">${problems.map((one) => html`<li class="errors">
    <code>${one.path}</code>: found ${one.value}; ${one.allowed}</li>`)}</ul>`;
}

// [{ indent, dash, key, value }]: one a line; `value` undefined where lines below hold it.
export function lines(value, indent = 0, lead = {}) {
  if (isPlain(value)) return [{ indent, ...lead, value }];
  const found = [];
  const entries = Array.isArray(value) ? value.map((one) => [null, one]) : Object.entries(value);
  entries.forEach(([key, inner], place) => {
    const first = place === 0 && lead.dash;
    const line = key === null ? { dash: true } : { key, dash: Boolean(first) };
    const at = first ? indent - 1 : indent;
    if (isPlain(inner)) found.push({ indent: at, ...line, value: inner });
    else if (key === null) found.push(...lines(inner, indent + 1, { dash: true }));
    else found.push({ indent: at, ...line }, ...lines(inner, indent + 1));
  });
  return found;
}

const isPlain = (value) => value === null || typeof value !== "object" || Object.keys(value).length === 0
  || (Array.isArray(value) && value.every((one) => one === null || typeof one !== "object") && JSON.stringify(value).length < 70);

function scalar(value) {
  if (Array.isArray(value)) return `[${value.map(scalar).join(", ")}]`;
  if (value !== null && typeof value === "object") return "{}";
  if (typeof value !== "string") return String(value);
  return /^[A-Za-z](?:[\w ./-]|:(?=\S))*$/.test(value) && !/^(true|false|null|yes|no|on|off)$/i.test(value) ? value : JSON.stringify(value);
}

function plain({ indent, dash, key, value }) {
  const head = `${"  ".repeat(indent)}${dash ? "- " : ""}${key === undefined ? "" : `${key}:`}`;
  return value === undefined ? head : `${head}${key === undefined ? "" : " "}${scalar(value)}`;
}

function Line({ line }) {
  const { indent, dash, key, value } = line;
  const kind = typeof value === "number" ? "number" : typeof value === "boolean" || value === null ? "word" : "text";
  return html`<span class="yaml-line">${"  ".repeat(indent)}${dash ? "- " : ""}${key !== undefined && html`<b>${key}</b><i>:</i>`}${
    value === undefined ? "" : html`${key === undefined ? "" : " "}<span class="yaml-${kind}">${scalar(value)}</span>`}</span>`;
}
