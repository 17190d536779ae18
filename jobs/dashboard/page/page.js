'use strict';
/* The pages: what is asked for each of them, again and again, and how it looks. */

const POLL_MS = 2000, HIDDEN_POLL_MS = 30000, FETCH_MS = 20000, EVENTS_SHOWN = 200, JOB_EVENTS_SHOWN = 20, REJECTS_SHOWN = 50;
const ENDED = ['done', 'failed', 'cancelled'];
const main = document.getElementById('main');

/* Of the page that is shown; made anew with every change of page. */
let page = null;
let timer = 0;

/* ---- asking ---- */

class Refused extends Error {}

async function ask(path) {
  const abort = new AbortController();
  const limit = setTimeout(() => abort.abort(), FETCH_MS);
  try {
    const answer = await fetch(path, {signal: abort.signal, credentials: 'same-origin'});
    if (answer.status === 401) location.assign('/login');
    const isJson = (answer.headers.get('Content-Type') || '').startsWith('application/json');
    const body = isJson ? await answer.json() : null;
    if (answer.ok && isJson) return body;
    const failure = body && body.error ? body.error : {text: 'the answer has status ' + answer.status};
    /* a limit may be another one's doing: too many questions at once */
    const isRefused = answer.status === 404 || (answer.status === 400 && failure.code !== 'limit');
    throw isRefused ? new Refused(failure.text) : new Error(failure.text);
  } catch (error) {
    if (error instanceof TypeError) throw new Error('the dashboard itself does not answer');
    if (error.name === 'AbortError') throw new Error('there was no answer in ' + FETCH_MS / 1000 + ' s');
    throw error;
  } finally {
    clearTimeout(limit);
  }
}

/* What may be missing: null where it is refused. */
async function askIfThere(path) {
  try {
    return await ask(path);
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

function sayState(text, isDown) {
  const state = document.getElementById('state');
  if (state.textContent !== text) state.textContent = text;
  state.className = isDown ? 'down' : '';
  main.className = isDown && page.data ? 'old' : '';
}

async function refresh() {
  const mine = page;
  clearTimeout(timer);
  try {
    const data = await mine.load(mine);
    if (mine !== page) return;
    mine.data = data;
    mine.since = Date.now();
    mine.error = null;
    draw();
    sayState('live', false);
  } catch (error) {
    if (mine !== page) return;
    if (error instanceof Refused) {
      patchChildren(main, [h('h1', null, 'Not here'), h('p', {class: 'note'}, error.message)]);
      sayState('live', false);
    } else {
      const old = mine.since ? '; this is from ' + new Date(mine.since).toLocaleTimeString() : '';
      sayState(error.message + old, true);
      if (!mine.data) patchChildren(main, [h('h1', null, 'No answer'), h('p', {class: 'note'}, error.message)]);
    }
  }
  timer = setTimeout(refresh, document.hidden ? HIDDEN_POLL_MS : POLL_MS);
}

function draw() {
  if (!page.data) return;
  const log = document.getElementById('log');
  const follows = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  patchChildren(main, page.show(page.data).filter(Boolean));
  const shown = document.getElementById('log');
  if (shown && follows) shown.scrollTop = shown.scrollHeight;
}

/* ---- pieces ---- */

const jobLink = row => h('a', {href: '#/job/' + row.id}, row.id + ' ' + row.name);
const jobNumber = job => job ? h('a', {href: '#/job/' + job}, job) : '';
const number = key => row => row[key] === null || row[key] === undefined ? '' : formatNumber(row[key]);
const text = key => row => row[key] === null || row[key] === undefined ? '' : String(row[key]);

function progress(row) {
  if (!row.total) return row.done ? formatNumber(row.done, 9) : '';
  const share = Math.floor(100 * row.done / row.total);
  return h('span', {class: 'progress'}, h('progress', {max: row.total, value: row.done, 'aria-label': 'progress'}),
    share + ' % (' + row.done + ' of ' + row.total + ')');
}

/* From how long what is done has taken. */
function timeLeft(row, now_ms) {
  if (row.state !== 'running' || !row.done || !row.total || row.total <= row.done) return '';
  return formatDuration((now_ms - row.started_ms) * (row.total - row.done) / row.done);
}

function timeTaken(row, now_ms) {
  return row.started_ms ? formatDuration((row.ended_ms || now_ms) - row.started_ms) : '';
}

const computeOf = m => Math.max(0, m.step_ms - (m.comm_ms || 0) - (m.wait_ms || 0));

/* The parts of a step in one bar. */
function splitBar(m) {
  if (!m || !m.step_ms) return '';
  const parts = [['c1', computeOf(m), 'compute'], ['c2', m.comm_ms || 0, 'communication'],
    ['c3', m.wait_ms || 0, 'waiting for data']];
  let x = 0;
  const label = parts.map(p => p[2] + ' ' + Math.round(100 * p[1] / m.step_ms) + ' %').join(', ');
  return h('svg', {class: 'split', viewBox: '0 0 100 9', preserveAspectRatio: 'none', role: 'img',
    'aria-label': label}, h('title', null, label),
    parts.map(p => {
      const width = Math.min(100 - x, 100 * p[1] / m.step_ms);
      const rect = {class: p[0], x: x.toFixed(1), y: 0, width: width.toFixed(1), height: 9};
      x += width;
      return h('rect', rect);
    }));
}

/* ---- overview ---- */

function showOverview(d) {
  const now_ms = d.now_ms, steps = new Map(d.steps.map(s => [s.job, s]));
  const n = Object.fromEntries(d.counts.map(c => [c.state, c.n]));
  const running = d.jobs.filter(j => ['running', 'placed', 'stopping'].includes(j.state));
  const waiting = d.jobs.filter(j => !running.includes(j));
  const workers = d.workers[0], rate = d.steps.reduce((sum, s) => sum + (s.samples_per_s || 0), 0);
  document.title = running.length + ' running: vneva';
  return [
    h('h1', {class: 'hidden'}, 'Overview'),
    h('div', {class: 'tiles'},
      tile(running.length, 'running'), tile(waiting.length, 'waiting'),
      tile((n.done || 0), 'done'), tile((n.failed || 0), 'failed', n.failed ? 'bad' : ''),
      tile(workers.n_busy + ' of ' + workers.n_devices, 'devices busy'),
      tile(workers.n, workers.n === 1 ? 'agent up' : 'agents up', workers.n ? '' : 'bad'),
      rate > 0 && tile(formatNumber(rate, 3), 'samples/s')),
    !d.jobs.length && !d.ended.length && section('No job yet',
      h('p', {class: 'note'}, 'Hand one in: ', h('code', null, 'vneva submit train.yaml'))),
    running.length > 0 && section('Running', table('jobs that run', [
      ['job', jobLink], ['kind', text('kind')], ['state', j => badge(j.state)], ['progress', progress],
      ['left', j => timeLeft(j, now_ms), 'number'],
      ['loss', j => number('loss')(steps.get(j.id) || {}), 'number'],
      ['samples/s', j => number('samples_per_s')(steps.get(j.id) || {}), 'number'],
      ['step', j => splitBar(steps.get(j.id))]], running)),
    waiting.length > 0 && section('Waiting', table('jobs that wait', [
      ['job', jobLink], ['kind', text('kind')], ['state', j => badge(j.state)], ['ranks', number('n_ranks'), 'number'],
      ['since', j => ago(j.state_ms, now_ms), 'plain'], ['why', text('reason')]], waiting)),
    d.ended.length > 0 && section('Ended', table('jobs that ended last', [
      ['job', jobLink], ['kind', text('kind')], ['state', j => badge(j.state)],
      ['took', j => timeTaken(j, now_ms), 'number'], ['ended', j => ago(j.ended_ms, now_ms), 'plain'],
      ['reason', text('reason')]], d.ended))];
}

/* ---- a job ---- */

async function loadJob(mine) {
  const at = '/data/job/' + mine.job, old = mine.data || {};
  const d = await ask(at);
  const isTraining = ['pretrain', 'finetune'].includes(d.job.kind);
  const isOver = ENDED.includes(d.job.state), wasOver = old.job && ENDED.includes(old.job.state);
  d.curve = isTraining && !(wasOver && old.curve) ? await askIfThere(at + '/curve') : old.curve;
  d.log = await askIfThere(at + '/log?rank=' + mine.rank);
  d.events = await ask('/api/events?where=job%3D' + mine.job + '&sort=-id&limit=' + JOB_EVENTS_SHOWN);
  d.rejects = !d.datasets.some(s => s.n_rejects > 0) ? [] : old.rejects && old.rejects.length
    ? old.rejects : await ask('/api/rejects?where=job%3D' + mine.job + '&limit=' + REJECTS_SHOWN);
  /* an evaluation's own, or those of the newest evaluation of what was trained here */
  const source = d.job.kind === 'evaluate' ? {id: mine.job, state: d.job.state}
                                           : d.evaluations.find(e => e.state === 'done');
  d.source = source && source.state === 'done' ? source.id : 0;
  const isKnown = old.source === d.source && isOver === Boolean(wasOver) && old.found !== undefined;
  d.found = !d.source ? null : isKnown ? old.found
                                       : await askIfThere('/data/job/' + d.source + '/examples');
  return d;
}

function showCharts(d) {
  const points = d.curve ? d.curve.points : [];
  /* as wide as the places of page.css are: main less its padding, the card's and the gap */
  const two = main.clientWidth >= 860;
  const width = Math.max(280, Math.round(two ? (main.clientWidth - 64) / 2 - 18 : main.clientWidth - 50));
  const column = key => points.filter(p => p[key] !== null && p[key] !== undefined)
    .map(p => [p.step, p[key]]);
  const common = title => ({title, x: 'step', width, hover: page.hover,
    onHover: step => { page.hover = step; draw(); },
    marks: d.curve.restarts.map(m => m.step), markName: 'an attempt went on from here'});
  if (!points.length) return null;
  const timed = points.filter(p => p.step_ms);
  const compute = timed.map(p => [p.step, computeOf(p)]);
  const both = timed.map(p => [p.step, computeOf(p) + (p.comm_ms || 0)]);
  const whole = timed.map(p => [p.step, computeOf(p) + (p.comm_ms || 0) + (p.wait_ms || 0)]);
  const find = new Map(timed.map(p => [p.step, p]));
  return h('section', {class: 'card', 'data-key': 'charts'}, h('h2', {class: 'hidden'}, 'Curves'),
    h('div', {class: two ? 'charts two' : 'charts'},
      chart({...common('Loss'), y: 'nats a token', mayBeLog: true, series: [
        {look: 'c1 faint', points: column('loss')},
        {name: 'training (running mean)', look: 'c1', points: smooth(column('loss'))},
        {name: 'validation', look: 'c2', points: d.curve.validation.map(v => [v.step, v.val_loss]), isDots: true}]}),
      chart({...common('Throughput'), y: 'samples a second', fromZero: true, series: [
        {name: 'samples/s', look: 'c4', points: column('samples_per_s')}]}),
      chart({...common('Step time'), y: 'ms', fromZero: true, series: [
        {name: 'waiting for data', look: 'c3', points: whole, below: both, isArea: true,
          value: s => find.get(s).wait_ms || 0},
        {name: 'communication', look: 'c2', points: both, below: compute, isArea: true,
          value: s => find.get(s).comm_ms || 0},
        {name: 'compute', look: 'c1', points: compute, isArea: true}]}),
      chart({...common('Learning rate'), y: 'rate', fromZero: true, series: [
        {name: 'rate', look: 'c3', points: column('lr')}]})));
}

function showExample(e, job) {
  const mark = e.is_correct === true ? 'right' : 'wrong';
  return h('article', {class: 'example ' + mark},
    h('div', {class: 'frames'}, (e.frames || []).map((name, i) => h('img', {loading: 'lazy',
      src: '/data/job/' + job + '/frames/' + encodeURIComponent(name), alt: 'frame ' + (i + 1)}))),
    h('p', null, h('span', {class: 'badge ' + mark}, mark), ' ', e.category, ' ',
      h('span', {class: 'id'}, e.id)),
    h('dl', null, h('dt', null, 'question'), h('dd', null, e.question),
      h('dt', null, 'expected'), h('dd', null, e.expected || '(nothing)'),
      h('dt', null, 'predicted'), h('dd', {class: mark}, e.given || '(nothing)')));
}

function showExamples(d) {
  if (!d.source) return null;
  if (!d.found)
    return section('Held-out examples', h('p', {class: 'note'},
      'The folder of job ' + d.source + ' is not to be seen from the dashboard’s machine.'));
  const all = Array.isArray(d.found.examples) ? d.found.examples : [];
  const right = all.filter(e => e.is_correct === true), which = page.which || 'all';
  const lists = {all, right, wrong: all.filter(e => e.is_correct !== true)};
  const found = d.found.table || {};
  const categories = Array.isArray(found.categories) ? found.categories : [];
  const sum = key => categories.reduce((total, c) => total + c[key], 0);
  const share = c => c.n ? (100 * c.correct / c.n).toFixed(1) + ' %' : '';
  return [
    categories.length > 0 && section('Answers',
      d.source !== d.job.id && h('p', {class: 'note'}, 'Of evaluation ', jobNumber(d.source), '.'),
      table('answers by kind of question', [['kind of question', text('category')],
        ['questions', number('n'), 'number'], ['right', number('correct'), 'number'],
        ['share', share, 'number'],
        ['', c => h('progress', {max: c.n || 1, value: c.correct, 'aria-label': 'share'})]],
      categories.concat([{category: 'all', n: sum('n'), correct: sum('correct')}]))),
    all.length > 0 && section('Held-out examples',
      h('div', {class: 'filter'}, Object.keys(lists).map(name =>
        h('button', {type: 'button', 'aria-pressed': String(which === name),
          onclick: () => { page.which = name; draw(); }}, name + ' ' + lists[name].length))),
      h('div', {class: 'examples'}, lists[which].map(e => showExample(e, d.source))))];
}

function showRanks(d, now_ms) {
  return d.ranks.length > 0 && section('Ranks', table('ranks', [
    ['rank', text('rank'), 'number'], ['attempt', text('attempt'), 'number'], ['host', text('host')],
    ['device', text('device'), 'number'], ['process', text('pid'), 'number'], ['state', r => badge(r.state)],
    ['stage', text('stage')],
    ['for', r => r.state === 'ended' || !r.since_ms ? '' : formatDuration(now_ms - r.since_ms), 'number'],
    ['step', text('step'), 'number'], ['memory', r => formatBytes(r.memory_bytes), 'number']], d.ranks));
}

function showAttempts(d, now_ms) {
  return d.attempts.length > 0 && section('Attempts', table('attempts', [
    ['attempt', text('attempt'), 'number'], ['ranks', text('n_ranks'), 'number'], ['state', a => badge(a.state)],
    ['started', a => ago(a.started_ms, now_ms), 'plain'], ['took', a => timeTaken(a, now_ms), 'number'],
    ['end', text('cause')], ['reason', text('reason')]], d.attempts));
}

function showTasks(d) {
  return d.tasks.length > 0 && section('Tasks', table('tasks by phase and state', [
    ['phase', text('phase')], ['state', t => badge(t.state)], ['tasks', number('n'), 'number'],
    ['failures', number('n_failures'), 'number']], d.tasks),
  d.troubles.length > 0 && h('details', null, h('summary', null, 'tasks that failed'), table('tasks that failed', [
    ['task', text('id'), 'number'], ['phase', text('phase')], ['range', t => t.first + ' to ' + (t.first + t.count), 'number'],
    ['state', t => badge(t.state)], ['failures', text('n_failures'), 'number'], ['reason', text('reason')]], d.troubles)));
}

function showResults(d, now_ms) {
  return [
    d.checkpoints.length > 0 && section('Checkpoints', table('checkpoints', [
      ['step', text('step'), 'number'], ['samples', number('consumed_samples'), 'number'],
      ['validation loss', number('val_loss'), 'number'], ['written', c => ago(c.created_ms, now_ms), 'plain'],
      ['kept', c => c.is_kept ? 'yes' : 'no'], ['folder', text('path')]], d.checkpoints)),
    d.datasets.length > 0 && section('Dataset', table('datasets', [['samples', number('n_samples'), 'number'],
      ['refused', number('n_rejects'), 'number'], ['folder', text('path')]], d.datasets)),
    d.rejects.length > 0 && section('Refused samples', h('p', {class: 'note'},
      'At most ' + REJECTS_SHOWN + ' are listed; all of them: ',
      h('code', null, 'vneva query rejects where job=' + d.job.id)),
    table('samples that were refused', [['sample', text('sample')], ['kind', text('kind')],
      ['reason', text('reason')], ['file', text('file')], ['line', text('line'), 'number']], d.rejects)),
    d.evaluations.length > 0 && section('Evaluations', table('evaluations', [['job', jobLink], ['state', e => badge(e.state)]], d.evaluations))];
}

function showLog(d) {
  if (!d.log) return null;
  const n = Math.max(1, d.job.n_ranks || 1);
  return section('Log',
    h('label', null, 'rank ', h('select',
      {onchange: event => { page.rank = Number(event.target.value); refresh(); }},
      Array.from({length: Math.min(n, 1024)}, (_, r) => h('option', {value: r}, r)))),
    h('span', {class: 'note'}, ' attempt ' + d.log.attempt + ', its end'),
    h('pre', {id: 'log', tabindex: 0, 'aria-label': 'log'},
      d.log.text.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, '') || '(nothing yet)'));
}

function showEvents(rows, now_ms, withJob) {
  return table('events, the newest first', [['when', e => ago(e.time_ms, now_ms), 'plain'],
    withJob && ['job', e => jobNumber(e.job), 'number'], ['kind', text('kind')], ['what', text('text')]].filter(Boolean), rows);
}

function showJson(title, value) {
  const has = value && typeof value === 'object' && Object.keys(value).length;
  return has ? h('section', {class: 'card', 'data-key': title}, h('details', null, h('summary', null, title),
    h('pre', {tabindex: 0}, JSON.stringify(value, null, 2)))) : null;
}

function showJob(d) {
  const job = d.job, now_ms = d.now_ms;
  const last = d.curve && d.curve.points.length ? d.curve.points[d.curve.points.length - 1] : {};
  document.title = job.id + ' ' + job.name + ': vneva';
  return [
    h('h1', null, 'Job ' + job.id + ' ', h('small', null, job.kind), ' ' + job.name + ' ', badge(job.state)),
    h('p', {class: 'why'}, d.why),
    job.total > 0 && !ENDED.includes(job.state) && h('p', null, progress(job)),
    h('div', {class: 'tiles'},
      job.total > 0 && tile(job.done + ' of ' + job.total, 'done'),
      timeLeft(job, now_ms) && tile(timeLeft(job, now_ms), 'left'),
      job.started_ms && tile(timeTaken(job, now_ms), job.ended_ms ? 'from start to end' : 'since it started'),
      last.loss !== undefined && last.loss !== null && tile(formatNumber(last.loss), 'loss'),
      last.samples_per_s > 0 && tile(formatNumber(last.samples_per_s, 3), 'samples/s'),
      tile(job.n_ranks, job.n_ranks === 1 ? 'rank' : 'ranks'),
      d.attempts.length > 1 && tile(d.attempts.length, 'attempts')),
    ...[showCharts(d), showExamples(d), showRanks(d, now_ms), showTasks(d), showAttempts(d, now_ms), showResults(d, now_ms),
      showLog(d)].flat(),
    d.events.length > 0 && section('Events', showEvents(d.events, now_ms, false)),
    showJson('Result', job.result), showJson('Specification', job.spec)];
}

/* ---- the other lists ---- */

function showWorkers(rows) {
  const now_ms = Date.now();
  document.title = 'workers: vneva';
  return [h('h1', null, 'Workers'), rows.length ? section('Agents', table('agents, the newest first', [
    ['host', text('host')], ['state', w => badge(w.state)], ['busy', w => w.n_busy + ' of ' + w.n_devices, 'number'],
    ['devices', text('device_kind')], ['memory', w => formatBytes(w.memory_bytes), 'number'],
    ['last heard of', w => ago(w.last_seen_ms, now_ms), 'plain'], ['process', text('pid'), 'number'],
    ['version', text('version')], ['agent', text('agent')]], rows)) : h('p', {class: 'note'}, 'No agent yet: ', h('code', null, 'vneva worker'))];
}

function showDatasets(rows) {
  const now_ms = Date.now();
  document.title = 'datasets: vneva';
  return [h('h1', null, 'Datasets'), rows.length ? section('Prepared datasets', table('datasets, the newest first', [
    ['name', text('name')], ['job', r => jobNumber(r.job), 'number'], ['samples', number('n_samples'), 'number'],
    ['refused', number('n_rejects'), 'number'], ['made', r => ago(r.created_ms, now_ms), 'plain'],
    ['folder', text('path')], ['fingerprint', text('fingerprint')]], rows)) : h('p', {class: 'note'}, 'No dataset has been prepared yet.')];
}

function showAllEvents(rows) {
  document.title = 'events: vneva';
  return [h('h1', null, 'Events'), section('The newest first', showEvents(rows, Date.now(), true))];
}

/* ---- which page ---- */

const pages = {
  '': {name: 'Overview', load: () => ask('/data/overview'), show: showOverview},
  workers: {name: 'Workers', load: () => ask('/api/workers?sort=-id&limit=1000'), show: showWorkers},
  datasets: {name: 'Datasets', load: () => ask('/api/datasets?sort=-id&limit=1000'), show: showDatasets},
  events: {name: 'Events', load: () => ask('/api/events?sort=-id&limit=' + EVENTS_SHOWN), show: showAllEvents},
};

function go() {
  const at = location.hash;
  if (at && !at.startsWith('#/')) return; /* the skip link */
  const [name, id] = at.slice(2).split('/');
  const job = name === 'job' && /^[0-9]{1,15}$/.test(id || '') ? id : null;
  const found = job ? {load: loadJob, show: showJob} : Object.hasOwn(pages, name) ? pages[name] : pages[''];
  page = {load: found.load, show: found.show, job, rank: 0, data: null, hover: null};
  patchChildren(document.getElementById('nav'), Object.entries(pages).map(([key, p]) =>
    h('a', {href: '#/' + key, 'aria-current': p === found ? 'page' : null}, p.name)));
  patchChildren(main, [h('p', {class: 'note'}, 'loading …')]);
  window.scrollTo(0, 0);
  refresh();
}

window.addEventListener('hashchange', go);
window.addEventListener('resize', () => draw());
document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
go();
