// What the gateway is asked. An answer that says no becomes a Refusal with the gateway's own words.
import { signOut, token } from "../session.js";
import { tenant } from "./tenant.js";

export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the gateway answered ${status}`);
    this.status = status;
    this.code = problem.code || "";
    this.errors = problem.errors || [];
  }
}

export class Away extends Error {
  constructor() {
    super("the gateway does not answer");
    this.status = 0;
  }
}

export function address(path, given = {}) {
  const query = { tenant: tenant.peek(), ...given };
  const url = new URL(path.replace(/^\//, ""), document.baseURI.split("#")[0]);
  for (const [name, value] of Object.entries(query)) {
    if (Array.isArray(value)) value.forEach((one) => url.searchParams.append(name, one));
    else if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

// `shown`: a token to try, instead of the one that was signed in with.
export async function ask(url, { shown = token.value, ...options } = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  headers.Authorization = `Bearer ${shown}`;
  let answer;
  try {
    answer = await fetch(url, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Away();
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401) signOut("The gateway does not know this token.");
  const refusal = new Refusal(answer.status, problem);
  refusal.retryAfter = Number(answer.headers.get("Retry-After")) || 0;
  throw refusal;
}

export async function get(path, query = {}, options = {}) {
  return (await ask(address(path, query), options)).json();
}

export async function post(path, body = {}, query = {}) {
  const answer = await ask(address(path, query), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

// Every page of a list, up to a limit that keeps a browser quick.
export async function pages(path, items, query = {}, most = 1000) {
  const found = [];
  let cursor = null;
  do {
    const page = await get(path, { ...query, cursor });
    found.push(...page[items]);
    cursor = page.next_cursor;
  } while (cursor && found.length < most);
  return found;
}
