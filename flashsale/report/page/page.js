"use strict";
// Draws the charts in the page's own colours, and again when those change.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const media = ["(prefers-color-scheme: dark)", "print", "(pointer: coarse)"].map((query) => matchMedia(query));

  // What begins with two dashes names one of the page's colours.
  const painter = () => {
    const style = getComputedStyle(document.documentElement);
    const paint = (value) => {
      if (typeof value === "string") return /^--[a-z-]+$/.test(value) ? style.getPropertyValue(value).trim() : value;
      if (Array.isArray(value)) return value.map(paint);
      if (value === null || typeof value !== "object") return value;
      return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, paint(part)]));
    };
    return paint;
  };

  const template = (narrow, touch) => {
    const axis = {
      automargin: true, fixedrange: touch, gridcolor: "--line", linecolor: "--line", zerolinecolor: "--line",
      tickfont: { size: 12 }, title: { font: { size: 12 }, standoff: 6 }, nticks: narrow ? 5 : 8,
      separatethousands: true, exponentformat: "none", tickangle: 0,
    };
    return {
      layout: {
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "--soft" },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        margin: { l: 8, r: 12, t: 8, b: 8 }, xaxis: axis, yaxis: axis,
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 }, traceorder: "normal" },
        hovermode: "x unified",
        hoverlabel: { bgcolor: "--paper", bordercolor: "--line", font: { color: "--ink", size: 12 } },
        separators: ".,", dragmode: touch ? false : "zoom", showlegend: true,
      },
    };
  };

  const draw = () => {
    const paint = painter();
    const [, print, touch] = media.map((query) => query.matches);
    for (const { key, data, layout } of charts) {
      const box = document.getElementById(`plot-${key}`);
      // Paper is not laid out yet when it is drawn for: half of A4's width, as page.css has it.
      const wide = box.parentElement.matches(":last-child:nth-child(odd)");
      const size = print ? { width: wide ? 660 : 320, height: "height" in layout ? 330 : 190 } : {};
      const look = paint({ ...layout, ...size, template: template(print || box.clientWidth < 480, touch) });
      Plotly.react(box, paint(data), look, { displayModeBar: false, responsive: true });
    }
  };

  draw();
  for (const query of media) query.addEventListener("change", draw);
})();
