// Says what a dot of the map is, and shows where the listed ones are. The map is there without it.
"use strict";
(() => {
  const points = JSON.parse(document.getElementById("points").textContent);
  const plane = document.getElementById("plane");
  const marks = document.getElementById("marks");
  const told = document.getElementById("told");
  const size = plane.viewBox.baseVal.width;
  document.documentElement.classList.add("with-script");

  const show = (numbers) => {
    marks.replaceChildren(...numbers.map((number) => {
      const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      ring.setAttribute("cx", points[number][0]);
      ring.setAttribute("cy", points[number][1]);
      ring.setAttribute("r", 12);
      return ring;
    }));
    told.replaceChildren(...numbers.map((number) => {
      const line = document.createElement("span");
      const id = document.createElement("b");
      const passage = document.createElement("bdi");
      passage.className = "long";
      id.append(document.createElement("bdi"));
      id.firstChild.className = "long";
      id.firstChild.textContent = points[number][3];
      passage.textContent = points[number][4];
      line.append(id, " ", passage);
      return line;
    }));
  };

  const point = (event) => {
    const box = plane.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * size;
    const y = ((event.clientY - box.top) / box.height) * size;
    let best = -1;
    let least = 30 * 30;
    points.forEach(([px, py], number) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [number, distance];
    });
    if (best >= 0) show([best]);
  };
  plane.addEventListener("pointermove", point);
  plane.addEventListener("click", point);  // a finger does not hover

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.show");
    if (button === null) return;
    show(button.dataset.points.split(" ").map(Number));
    plane.scrollIntoView({ block: "nearest" });
  });
})();
