// One federation: where it stands and why, its rounds, its clients, its checkpoints, its history.
import { ClientsTable } from "../federation/clients_table.js";
import { useCommandKeys } from "../federation/commands.js";
import { Curves } from "../federation/curves.js";
import { Head } from "../federation/head.js";
import { HistoryPanel, TravelMark, useTravel } from "../federation/history.js";
import { LineagePanel } from "../federation/lineage.js";
import { RoundPanel } from "../federation/round.js";
import { SpecPanel } from "../federation/spec.js";
import { FederationStore } from "../federation/store.js";
import { link } from "../router.js";
import { Bones, Empty, Note } from "../ui/parts.js";
import { html, useEffect, useMemo } from "../ui/view.js";

export function FederationPage({ id }) {
  const store = useMemo(() => new FederationStore(id), [id]);
  useEffect(() => {
    store.start();
    return () => store.stop();
  }, [store]);
  useTravel(store);
  useCommandKeys(store);
  const view = store.shown.value;
  const name = view?.federation.name;
  useEffect(() => {
    document.title = `${name || id} · Flowerbed`;
  }, [name, id]);
  const crumbs = html`<nav class="crumbs" aria-label="Where you are">
    <a href=${link("federations")}>Federations</a> / ${name || id}</nav>`;
  if (!view) {
    const gone = store.error.value;
    return html`${crumbs}<section class="panel">${gone
      ? html`<${Empty} title="It cannot be shown"><p>${gone}</p><//>` : html`<${Bones} lines=${6} />`}</section>`;
  }
  return html`${crumbs}
    <${TravelMark} store=${store} />
    <div class="stack" data-position=${view.position} data-status=${view.federation.status}>
      <${Head} store=${store} view=${view} />
      ${store.error.value && html`<${Note} tone="bad" icon="cross">${store.error.value}<//>`}
      ${view.federation.status === "rejected" ? html`<${SpecPanel} view=${view} />` : html`
        <${Curves} view=${view} />
        <${RoundPanel} store=${store} view=${view} />
        <${ClientsTable} store=${store} view=${view} />
        <${LineagePanel} store=${store} view=${view} />`}
      <${HistoryPanel} store=${store} />
      ${view.federation.status !== "rejected" && html`<${SpecPanel} view=${view} />`}
    </div>`;
}
