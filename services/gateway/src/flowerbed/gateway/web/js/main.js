// Starts the page: signed in or not, then which page.
import { ClientsPage } from "./pages/clients.js";
import { FederationPage } from "./pages/federation.js";
import { FederationsPage } from "./pages/federations.js";
import { ServicesPage } from "./pages/services.js";
import { SignIn } from "./pages/sign_in.js";
import { SlosPage } from "./pages/slos.js";
import { route } from "./router.js";
import { token } from "./session.js";
import { Shell } from "./shell.js";
import { tenant } from "./data/tenant.js";
import { who } from "./data/who.js";
import { html, render } from "./ui/view.js";

function Page() {
  const { page, id } = route.value;
  if (page === "federations" && id) return html`<${FederationPage} key=${id} id=${id} />`;
  if (page === "clients") return html`<${ClientsPage} />`;
  if (page === "services") return html`<${ServicesPage} />`;
  if (page === "slos") return html`<${SlosPage} />`;
  return html`<${FederationsPage} />`;
}

function App() {
  if (!token.value) return html`<${SignIn} />`;
  if (!who.value) return null; // a moment: what may be done is not known yet
  return html`<${Shell}><${Page} key=${tenant.value} /><//>`;
}

render(html`<${App} />`, document.getElementById("app"));
