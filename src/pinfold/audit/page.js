"use strict";
// Everything here is text to be shown: it is only ever put into text nodes.
(() => {
  const tree = JSON.parse(document.getElementById("tree-data").textContent);
  const place = document.getElementById("tree");
  const HITS = 300;

  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  // A node is [name, calls, reads, writes, denied, calls on names without a node, children].
  const label = (into, node, text) => {
    into.append(element("span", text));
    const marks = [node[1] + (node[1] === 1 ? " call" : " calls")];
    if (node[2]) marks.push(node[2] + " read");
    if (node[3]) marks.push(node[3] + " write");
    into.append(element("span", marks.join(", "), "counts"));
    if (node[4]) into.append(" ", element("span", node[4] + " denied", "denied"));
  };

  const show = (node, into) => {
    if (!node[6].length && !node[5]) {
      const leaf = element("div", undefined, "leaf");
      label(leaf, node, node[0]);
      into.append(leaf);
      return;
    }
    const details = element("details");
    const summary = element("summary");
    label(summary, node, node[0] === "/" ? "/" : node[0] + "/");
    details.append(summary);
    details.addEventListener("toggle", () => {
      if (details.children.length > 1) return;
      for (const child of node[6]) show(child, details);
      if (node[5]) {
        details.append(element("div", "and " + node[5] + " more calls on names below", "leaf more"));
      }
    });
    into.append(details);
    return details;
  };

  const browse = () => {
    place.replaceChildren();
    const top = show(tree, place);
    if (top) top.open = true;
  };

  const find = (wanted) => {
    place.replaceChildren();
    let hits = 0;
    const rest = [[tree, "/"]];
    while (rest.length) {
      const [node, path] = rest.pop();
      if (path.toLowerCase().includes(wanted)) {
        hits += 1;
        if (hits <= HITS) {
          const leaf = element("div", undefined, "leaf");
          label(leaf, node, path);
          place.append(leaf);
        }
      }
      for (let at = node[6].length - 1; at >= 0; at -= 1) {
        const child = node[6][at];
        rest.push([child, (path === "/" ? "/" : path + "/") + child[0]]);
      }
    }
    if (hits > HITS) place.append(element("div", "and " + (hits - HITS) + " more", "more"));
    if (!hits) place.append(element("div", "no such name", "none"));
  };

  const rows = document.querySelectorAll("table.searched tbody tr");
  const box = document.getElementById("search");
  const status = document.getElementById("found");
  const search = () => {
    const wanted = box.value.trim().toLowerCase();
    let left = 0;
    for (const row of rows) {
      row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
      if (!row.hidden) left += 1;
    }
    status.textContent = wanted ? left + " of " + rows.length + " rows" : "";
    if (wanted) find(wanted);
    else browse();
  };
  box.addEventListener("input", search);
  document.getElementById("search-form").hidden = false;
  browse();
})();
