// The door: whoever has a token may look.
import { get } from "../data/api.js";
import { refused, signIn } from "../session.js";
import { Flower } from "../ui/icons.js";
import { Note } from "../ui/parts.js";
import { html, useEffect, useState } from "../ui/view.js";

export function SignIn() {
  const [given, setGiven] = useState("");
  const [error, setError] = useState(refused.value);
  useEffect(() => {
    document.title = "Sign in · Flowerbed";
  }, []);
  async function enter(event) {
    event.preventDefault();
    const bare = given.trim().replace(/^Bearer\s+/i, "");
    if (!bare) return setError("Paste a token first.");
    try {
      await get("/federations", { limit: 1 }, { shown: bare });
    } catch (failure) {
      return setError(failure.status === 401 ? "The gateway does not know this token." : failure.message);
    }
    return signIn(bare);
  }
  return html`<main class="gate"><div class="gate-card">
    <div class="brand"><${Flower} />Flowerbed</div>
    <h1>Sign in</h1>
    <p>Paste your API token, or a token of your identity provider. It stays in this browser tab
      and is forgotten when the tab is closed.</p>
    <form onSubmit=${enter}>
      <label class="field">Token
        <input class="input mono" type="password" name="token" autocomplete="off" spellcheck="false"
          autofocus value=${given} onInput=${(event) => setGiven(event.target.value)} /></label>
      ${error && html`<div role="alert"><${Note} tone="bad" icon="cross">${error}<//></div>`}
      <button class="button primary" type="submit">Sign in</button>
      <span class="small quiet">On this machine it is in <code>secrets/api_token</code> of the
        stack’s state directory.</span>
    </form>
  </div></main>`;
}
