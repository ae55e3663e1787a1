/** Elements from code: no markup is ever parsed, so no name in a trace can become any. */

type Child = Node | string | null;
type Properties = Readonly<Record<string, string | number | boolean | ((event: never) => void) | undefined>>;

/** `onclick` and the like are listeners, `true` is an attribute without value, `false` and undefined are none. */
function apply(element: Element, properties: Properties): void {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value as EventListener);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
}

export function h<K extends keyof HTMLElementTagNameMap>(tag: K, properties: Properties = {}, ...children: readonly Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  apply(element, properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function svg(tag: string, properties: Properties = {}, ...children: readonly Child[]): SVGElement {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  apply(element, properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const known = new Map<string, string>();

/** Colours come from the style sheet, so that both themes are in one place. */
export function colour(name: string): string {
  const { dataset } = document.documentElement;
  const key = `${dataset['theme'] ?? ''} ${name}`;
  let found = known.get(key);
  if (found === undefined) {
    found = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    known.set(key, found);
  }
  return found;
}

export const classColour = (place: number): string => colour(`c${Math.min(place, 7)}`);

export interface Surface {
  readonly context: CanvasRenderingContext2D;
  readonly width: number;
  readonly height: number;
}

/** A cleared canvas of this size in CSS pixels, sharp on every screen. */
export function surface(canvas: HTMLCanvasElement, width: number, height: number): Surface {
  const ratio = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext('2d')!;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

export type Rgb = readonly [red: number, green: number, blue: number];

/** Of a colour of the style sheet, which has them as `#rrggbb`. */
export function rgbOf(hex: string): Rgb {
  const value = Number.parseInt(hex.slice(1), 16);
  return [Math.floor(value / 0x1_0000), Math.floor(value / 0x100) % 0x100, value % 0x100];
}

/** A picture of small equal cells: much quicker than as many rectangles. Row 0 is at the bottom. */
export class Cells {
  readonly #data: ImageData;

  constructor(readonly columns: number, readonly rows: number) {
    this.#data = new ImageData(columns, rows);
  }

  /** Lays a colour over what the cell has already; `cover` from 0 to 1. */
  paint(column: number, row: number, [red, green, blue]: Rgb, cover: number): void {
    const { data } = this.#data;
    const place = ((this.rows - 1 - row) * this.columns + column) * 4;
    const under = data[place + 3]! / 255;
    const all = cover + under * (1 - cover);
    const mix = (over: number, below: number): number => (over * cover + below * under * (1 - cover)) / all;
    data[place] = mix(red, data[place]!);
    data[place + 1] = mix(green, data[place + 1]!);
    data[place + 2] = mix(blue, data[place + 2]!);
    data[place + 3] = all * 255;
  }

  drawTo(context: CanvasRenderingContext2D, left: number, top: number, width: number, height: number): void {
    const picture = document.createElement('canvas');
    picture.width = this.columns;
    picture.height = this.rows;
    picture.getContext('2d')!.putImageData(this.#data, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, left, top, width, height);
  }
}
