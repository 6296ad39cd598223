// Plots of numbers over time.
import uPlot from 'uplot';
import { html } from 'htm/preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { bytes, count } from './format.js';

const height = 150; // px
const colours = ['--accent', '--second', '--third'];

/** A colour of the style sheet, which knows dark from light. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** All plots of a page show the same moment under the pointer. */
const cursor = { y: false, drag: { setScale: false, x: false }, sync: { key: 'page' } };

/** From when to when all of data is, in seconds: a few samples are no whole width. */
function spanOf([times]) {
  const first = times[0] ?? Date.now() / 1000;
  const last = times.at(-1) ?? first;
  return [Math.min(first, last - 300), last];
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' });

/** What stands below a plot: times, or days where there are many of them. */
function moments(u, splits) {
  const { min, max } = u.scales.x;
  const format = max - min > 36 * 3600 ? day : clock;
  return splits.map((t) => format.format(new Date(t * 1000)));
}

/** Steps of a scale of bytes: powers of two. */
const powers = Array.from({ length: 50 }, (_, n) => 2 ** n);

function options({ width, names, show, floor, point, times, bars }) {
  const axis = { stroke: colour('--faint'), font: '12px system-ui, sans-serif', grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false } };
  const line = (name, n) => ({
    label: name, stroke: colour(colours[n]), width: bars ? 0 : 1.75,
    paths: bars && uPlot.paths.bars({ size: [0.8, 40] }),
    points: { show: (u) => !bars && u.data[0].length < 5, size: 5, fill: colour(colours[n]) },
    fill: n ? undefined : colour(colours[0]) + (bars ? 'cc' : '1a'), // of 255
  });
  return {
    width, height, cursor,
    series: [{}, ...names.map(line)],
    axes: [
      { ...axis, grid: { show: false }, space: 70, size: 30, values: moments },
      { ...axis, size: 58, space: 36, values: (_, splits) => splits.map(show), ...(show === bytes && { incrs: powers }) },
    ],
    scales: { x: { range: times }, y: { range: (_, low, high) => [0, Math.max(floor, (high ?? 0) * 1.15)] } },
    legend: { show: false },
    hooks: { setCursor: [(u) => point(u.cursor.idx ?? null)] },
  };
}

/**
 * data is the times in seconds, and then for each of names its values, null where there is
 * none; it is drawn anew when at is another one. show makes texts of values, no scale ends
 * below floor, and span is from when to when, if not all that data has; bars are for sums,
 * such as of an hour. Over the plot stand the last values, or those under the pointer.
 */
export function Plot({ title, at, data, names, show = count, floor = 1, span, bars = false }) {
  const box = useRef();
  const plot = useRef();
  const times = useRef();
  times.current = span ?? spanOf(data);
  const [pointed, point] = useState(null);
  useEffect(() => {
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options({ width: box.current.clientWidth, names, show, floor, point, times: () => times.current, bars }), data, box.current);
    };
    make();
    const dark = matchMedia('(prefers-color-scheme: dark)');
    dark.addEventListener('change', make);
    const sizes = new ResizeObserver(() => plot.current.setSize({ width: box.current.clientWidth, height }));
    sizes.observe(box.current);
    return () => {
      sizes.disconnect();
      dark.removeEventListener('change', make);
      plot.current.destroy();
    };
  }, []);
  useEffect(() => { plot.current.setData(data); }, [at]);
  const value = (n) => data[n + 1][pointed ?? data[0].length - 1];
  return html`
    <figure class="plot">
      <figcaption>
        <b>${title}</b>
        ${names.map((name, n) => html`<span class="series" key=${name}>${name} <span class="value">${value(n) == null ? '–' : show(value(n))}</span></span>`)}
      </figcaption>
      <div ref=${box} aria-hidden="true"></div>
    </figure>`;
}
