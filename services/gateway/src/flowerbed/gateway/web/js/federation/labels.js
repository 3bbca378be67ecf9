// How a client is called on this page: by its dataset's label, else its tags, else its id.
import { shortLabel } from "../format.js";

export function labels(view) {
  return (id) => {
    const client = view.clients[id];
    return shortLabel(client?.dataset) || client?.tags?.join(", ") || id;
  };
}

// `hospital-3f2c9a01` of client-4f1c09aa27d3: both, where there is room.
export function bothNames(view, id) {
  const name = labels(view)(id);
  return name === id ? [id, ""] : [name, id];
}
