// A plot of numbers over time.
import uPlot from 'uplot';
import { html } from 'htm/preact';
import { useEffect, useRef } from 'preact/hooks';
import { count } from './format.js';

const height = 180; // px

/** A colour of the style sheet, which knows dark from light. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(width, names) {
  const axis = { stroke: colour('--faint'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false } };
  const line = (name, n) => ({ label: name, stroke: colour(n ? '--second' : '--accent'), width: 1.5, points: { show: false } });
  return {
    width, height,
    series: [{}, ...names.map(line)],
    axes: [axis, { ...axis, size: 44 }],
    scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    cursor: { y: false },
    legend: { show: true },
  };
}

/**
 * data is the times in seconds, and then for each of names its values; it is drawn anew
 * when at is another one. Readers that see no picture are told the last values.
 */
export function Plot({ title, at, data, names }) {
  const box = useRef();
  const plot = useRef();
  useEffect(() => {
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(box.current.clientWidth, names), data, box.current);
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
  const last = names.map((name, n) => `${name} ${count(data[n + 1].at(-1))}`).join(', ');
  return html`
    <figure class="plot">
      <figcaption>${title}<span class="unseen">: now ${last}</span></figcaption>
      <div ref=${box} aria-hidden="true"></div>
    </figure>`;
}
