// Brings a part of the page to what the server says now, touching only what differs: the focus, a playing video, an open
// <details> and half-filled fields stay as they are.
//
// Children are matched by id, else by order and tag. An element with data-keep stays untouched while the new one has the same
// value there, save its descendants marked data-fresh.

export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(document.importNode(fresh, true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.isEqualNode(fresh)) return;
  const kept = old.dataset?.keep;
  if (kept !== undefined && kept === fresh.dataset.keep) {
    for (const part of fresh.querySelectorAll("[data-fresh][id]")) {
      const there = old.querySelector(`#${CSS.escape(part.id)}`);
      if (there) morph(there, part);
    }
    return;
  }
  if (kept !== undefined || fresh.dataset?.keep !== undefined) {
    old.replaceWith(document.importNode(fresh, true));
    return;
  }
  attributes(old, fresh);
  children(old, fresh);
}

function attributes(old, fresh) {
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(old.nodeName === "DETAILS" && name === "open")) old.removeAttribute(name);
  }
  if (old.nodeName === "INPUT" && (old.type === "radio" || old.type === "checkbox")) {
    old.checked = fresh.hasAttribute("checked");
  }
}

function children(old, fresh) {
  const wanted = new Set([...fresh.children].map((child) => child.id).filter(Boolean));
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    // An old child that has an id the new page lacks is gone; one that comes later must not be overwritten by another.
    while (at && at.id && !wanted.has(at.id)) at = drop(at);
    const same = child.id && [...old.children].find((one) => one.id === child.id);
    if (same) {
      if (same !== at) old.insertBefore(same, at);
      else at = at.nextSibling;
      morph(same, child);
    } else if (at && !at.id && !child.id && at.nodeName === child.nodeName) {
      const next = at.nextSibling;
      morph(at, child);
      at = next;
    } else {
      old.insertBefore(document.importNode(child, true), at);
    }
  }
  while (at) at = drop(at);
}

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}
