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

/** Colours come from the style sheet, so that both themes are in one place. */
export const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

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
