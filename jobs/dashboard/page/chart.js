'use strict';
/* Line charts as SVG trees for dom.js. Colours come from page.css, by class. */

const CHART_HEIGHT = 230, CHART_LEFT = 56, CHART_RIGHT = 12, CHART_TOP = 10, CHART_BOTTOM = 40;
const LOG_FROM = 50; /* values that span more than this factor are drawn logarithmically */

/* About n round numbers from low to high. */
function ticks(low, high, n) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / n, power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= rough) || 10 * power;
  const list = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) list.push(i * step);
  return list;
}

/* Where the numbers lie, and how they become places. */
function makeScale(values, fromZero, mayBeLog, place0, place1, wholeOnly) {
  let low = Math.min(...values), high = Math.max(...values);
  const isLog = mayBeLog && low > 0 && high / low > LOG_FROM;
  if (fromZero) low = Math.min(low, 0);
  if (low === high) { low -= wholeOnly ? 0 : Math.abs(low) * 0.1 || 0.5; high += Math.abs(high) * 0.1 || 1; }
  const to = isLog ? Math.log10 : x => x;
  const place = x => place0 + (to(x) - to(low)) / (to(high) - to(low)) * (place1 - place0);
  let list = isLog ? ticks(to(low), to(high), 4).map(x => Math.pow(10, x)) : ticks(low, high, 5);
  if (wholeOnly) list = list.filter(x => Number.isInteger(x));
  return {place, list, isLog};
}

function path(points, x, y) {
  return points.map((p, i) => (i ? 'L' : 'M') + x(p[0]).toFixed(1) + ' ' + y(p[1]).toFixed(1)).join('');
}

function area(points, below, x, y) {
  const back = (below || points.map(p => [p[0], 0])).slice().reverse();
  return path(points, x, y) + path(back, x, y).replace('M', 'L') + 'Z';
}

function nearest(points, x) {
  let best = null;
  for (const p of points) if (best === null || Math.abs(p[0] - x) < Math.abs(best[0] - x)) best = p;
  return best;
}

function drawAxes(x, y, width, titles) {
  const bottom = CHART_HEIGHT - CHART_BOTTOM;
  return [
    y.list.map(v => h('g', null,
      h('line', {class: 'grid', x1: CHART_LEFT, x2: width - CHART_RIGHT, y1: y.place(v).toFixed(1), y2: y.place(v).toFixed(1)}),
      h('text', {x: CHART_LEFT - 6, y: (y.place(v) + 4).toFixed(1), 'text-anchor': 'end'}, formatNumber(v, 3)))),
    x.list.map(v => h('text', {x: x.place(v).toFixed(1), y: bottom + 16, 'text-anchor': 'middle'}, formatNumber(v, 6))),
    h('line', {class: 'axis', x1: CHART_LEFT, x2: width - CHART_RIGHT, y1: bottom, y2: bottom}),
    h('text', {x: (CHART_LEFT + width - CHART_RIGHT) / 2, y: CHART_HEIGHT - 6, 'text-anchor': 'middle'}, titles[0]),
    h('text', {x: 12, y: (CHART_TOP + bottom) / 2, 'text-anchor': 'middle',
      transform: 'rotate(-90 12 ' + (CHART_TOP + bottom) / 2 + ')'}, titles[1])];
}

function drawSeries(s, x, y) {
  if (s.isDots)
    return s.points.map(p => h('circle', {class: s.look, cx: x.place(p[0]).toFixed(1), cy: y.place(p[1]).toFixed(1), r: 4}));
  if (s.isArea)
    return h('path', {class: s.look + ' area', d: area(s.points, s.below, x.place, y.place)});
  return h('path', {class: s.look + ' line', d: path(s.points, x.place, y.place)});
}

/* What stands under the chart: names, and the values where the pointer is or at the end. */
function drawKey(spec, at) {
  const named = spec.series.filter(s => s.name && s.points.length);
  return h('p', {class: 'key'}, h('span', {class: 'at'}, spec.x + ' ' + formatNumber(at, 9)),
    named.map(s => {
      const p = nearest(s.points, at);
      const value = s.value ? s.value(p[0]) : p[1];
      return h('span', null, h('i', {class: s.look}), s.name + ' ' + formatNumber(value, 4));
    }));
}

/* spec: {title, x, y (titles of the axes), series: [{name, look, points: [[x, y]], isArea,
 * below, isDots, value}], marks: [x], markName, fromZero, mayBeLog, width, hover, onHover}.
 * null when there is nothing to draw. */
function chart(spec) {
  const all = spec.series.flatMap(s => s.points);
  if (!all.length) return null;
  const bottom = CHART_HEIGHT - CHART_BOTTOM, right = spec.width - CHART_RIGHT;
  const x = makeScale(all.map(p => p[0]), false, false, CHART_LEFT, right, true);
  const y = makeScale(all.map(p => p[1]), spec.fromZero, spec.mayBeLog, bottom, CHART_TOP, false);
  const last = Math.max(...all.map(p => p[0])), named = spec.series.find(s => s.name) || spec.series[0];
  const at = spec.hover === null || spec.hover === undefined ? last : nearest(all, spec.hover)[0];
  const onMove = event => {
    const box = event.currentTarget.getBoundingClientRect();
    const place = (event.clientX - box.left) / box.width * spec.width;
    spec.onHover(all.reduce((best, p) =>
      Math.abs(x.place(p[0]) - place) < Math.abs(x.place(best[0]) - place) ? p : best)[0]);
  };
  return h('figure', {class: 'chart', 'data-key': spec.title},
    h('figcaption', null, spec.title + (y.isLog ? ' (logarithmic)' : '')),
    h('svg', {viewBox: '0 0 ' + spec.width + ' ' + CHART_HEIGHT, role: 'img', 'aria-label':
      spec.title + ' by ' + spec.x + ', at ' + formatNumber(last, 9) + ': ' +
      formatNumber(named.points.length ? named.points[named.points.length - 1][1] : NaN) + ' ' + spec.y,
      onpointermove: onMove, onpointerleave: () => spec.onHover(null)},
      drawAxes(x, y, spec.width, [spec.x, spec.y]),
      spec.series.map(s => drawSeries(s, x, y)),
      (spec.marks || []).filter(m => m <= last).map(m => h('line', {class: 'mark', x1: x.place(m).toFixed(1),
        x2: x.place(m).toFixed(1), y1: CHART_TOP, y2: bottom}, h('title', null, spec.markName))),
      h('line', {class: 'pointer', x1: x.place(at).toFixed(1), x2: x.place(at).toFixed(1), y1: CHART_TOP, y2: bottom})),
    drawKey(spec, at));
}

/* A running mean that forgets within a 40th of the curve, corrected for its beginning. */
function smooth(points) {
  const keep = points.length > 40 ? 1 - 40 / points.length : 0;
  let mean = 0, weight = 0;
  return points.map(p => {
    mean = keep * mean + (1 - keep) * p[1];
    weight = keep * weight + (1 - keep);
    return [p[0], mean / weight];
  });
}
