// The one tenant that is looked at, by somebody who has roles in several; empty for all that may be seen.
import { effect, signal } from "../ui/view.js";

const KEY = "flowerbed.tenant";

export const tenant = signal(sessionStorage.getItem(KEY) || "");

effect(() => sessionStorage.setItem(KEY, tenant.value));
