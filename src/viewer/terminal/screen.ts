/** A scene as a screen. */
import { Grid } from './grid.js';
import { GUTTER, layoutOf, SMALLEST, type Layout } from './layout.js';
import { moment, plural, span } from './numbers.js';
import { drawHeat, drawLine, lineCharts } from './panel-charts.js';
import { drawLegend } from './panel-legend.js';
import { drawFindings, drawRequests } from './panel-lists.js';
import { drawAxis, drawMap } from './panel-map.js';
import { drawRequest } from './panel-request.js';
import { chartsOf, type Scene } from './scene.js';
import { Attribute, Colour } from './style.js';
import { clip, fit, widthOf } from './text.js';

export function drawScreen(columns: number, rows: number, scene: Scene): Grid {
  const grid = new Grid(columns, rows, scene.look.ascii);
  if (columns < SMALLEST.columns || rows < SMALLEST.rows) {
    grid.write(0, 0, clip(`quiesce: ${columns}x${rows} is too small; q quits`, columns));
    return grid;
  }
  if (scene.view.help) drawHelp(grid);
  else drawPanels(grid, layoutOf(columns, rows, { findings: scene.findings.length + (scene.findings.length > 0 ? 1 : 0), table: scene.view.focus === 'requests' }), scene);
  drawKeys(grid, scene);
  return grid;
}

/** All panels but the line of keys. */
export function drawPanels(grid: Grid, layout: Layout, scene: Scene): void {
  const charts = chartsOf(scene, Math.max(1, layout.map.width - GUTTER));
  const lines = lineCharts(scene, charts);
  drawTitle(grid, scene);
  drawFindings(grid, layout.findings, scene);
  drawMap(grid, layout.map, scene);
  drawAxis(grid, layout.axis, scene);
  drawHeat(grid, layout.heat, charts);
  for (const [index, chart] of lines.entries()) drawLine(grid, layout.lines[index]!, chart);
  drawLegend(grid, layout, scene, charts, lines);
  drawRequest(grid, layout.details, scene);
  if (layout.requests !== null) drawRequests(grid, layout.requests, scene);
}

function drawTitle(grid: Grid, { model, view, source }: Scene): void {
  const { from, to } = view.span;
  const whole = model.span;
  const part = to - from < (whole.to - whole.from) * 0.999 ? `  ${moment(from, (to - from) / 100)}–${moment(to, (to - from) / 100)} s of ${span(whole.to)}` : `  ${span(whole.to - whole.from)}`;
  const live = source.live ? view.following ? '  LIVE' : '  live, f follows' : '';
  const facts = `${plural(model.table.count, 'request')}${part}${live}${filterText(view, model)}`;
  const room = Math.max(8, grid.columns - widthOf(facts) - 4);
  const notice = source.notice === '' ? '' : `  ${source.notice}`;
  grid.write(0, 0, fit(` ${clip(source.name, room)}  ${facts}${notice}`, grid.columns), Attribute.REVERSE);
}

function filterText({ filter: { ops, pids, devices } }: Scene['view'], model: Scene['model']): string {
  const parts = [
    ...ops ?? [], ...(pids ?? []).map((pid) => `${model.table.processes.get(pid) ?? 'pid'} ${pid}`),
    ...(devices ?? []).map((wanted) => model.devices.find(({ device }) => device === wanted)?.name ?? ''),
  ];
  return parts.length === 0 ? '' : `  only ${parts.join(', ')}`;
}

const HELP: readonly (readonly [string, string])[] = [
  ['Tab, Shift-Tab', 'next panel: findings, map, requests'],
  ['← → ↑ ↓', 'map: pan; lists: choose'],
  ['+ -', 'zoom time in and out, around the cross'],
  ['[ ]', 'zoom offsets in and out; z fits them to what is seen'],
  ['h j k l', 'move the cross; Enter takes the request nearest to it'],
  ['> <', 'next and previous request'],
  ['n N', 'next and previous finding: jump to its region'],
  ['c', 'colour by operation, process, layer'],
  ['o p d', 'show one operation, process, layer only; x shows all'],
  ['m', 'map in dots or letters'],
  ['0, Home, End', 'the whole trace, its beginning, its end'],
  ['f', 'follow a live trace'],
  ['Ctrl-L, Ctrl-Z', 'draw again; suspend'],
  ['q, Ctrl-C', 'quit'],
];

function drawHelp(grid: Grid): void {
  grid.write(0, 0, fit(' quiesce trace view: keys', grid.columns), Attribute.REVERSE);
  for (const [index, [keys, does]] of HELP.entries()) {
    grid.write(2, 2 + index, fit(keys, 16), Attribute.BOLD);
    grid.write(19, 2 + index, clip(does, grid.columns - 19));
  }
  const marks = 'Map: a request is as high as it is large, as wide as it took. Waterfall: ╌ queued, ━ at the device.';
  grid.write(2, 3 + HELP.length, clip(marks, grid.columns - 2), Colour.DIM);
}

function drawKeys(grid: Grid, { view }: Scene): void {
  const colour = view.colour === 'op' ? 'operation' : view.colour;
  const words = view.help ? ['? back', 'q quit']
    : [`Tab ${view.focus}`, '←→ pan', '+- zoom', 'n finding', '> < request', `c by ${colour}`, 'o p d filter', '? help', 'q quit'];
  // the last two are what nobody may miss
  while (widthOf(words.join('  ')) > grid.columns - 2 && words.length > 2) words.splice(-3, 1);
  grid.write(0, grid.rows - 1, clip(` ${words.join('  ')}`, grid.columns), Colour.DIM);
}
