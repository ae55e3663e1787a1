/** Colours by what they mean, for terminals of 256, of 16 and without colours. A style is one number, so that cells compare fast. */

export type ColourDepth = 'none' | '16' | '256';

/** Of the 256-colour palette, and the SGR number of a foreground in 16 colours. Chosen to be told apart on dark and on light ground. */
const PALETTE: readonly (readonly [number, number])[] = [
  [0, 39],
  // reads, writes, flushes, discards, other, errors
  [33, 94], [208, 33], [170, 95], [71, 32], [245, 37], [196, 91],
  // processes and layers
  [33, 94], [208, 33], [71, 32], [170, 95], [37, 36], [160, 31], [99, 35], [142, 93],
  // from few to many
  [24, 34], [31, 36], [36, 36], [71, 32], [142, 33], [208, 33], [202, 91], [196, 91],
  // words beside data, lines of charts
  [245, 90], [37, 36], [178, 33],
];

export const Colour = { NONE: 0, READ: 1, WRITE: 2, FLUSH: 3, DISCARD: 4, OTHER: 5, ERROR: 6, SERIES: 7, HEAT: 15, DIM: 23, LINE: 24, WARN: 25 } as const;
export const SERIES_COLOURS = 8;
export const HEAT_COLOURS = 8;

const ATTRIBUTE = 64;
export const Attribute = { BOLD: ATTRIBUTE, REVERSE: ATTRIBUTE * 2, UNDERLINE: ATTRIBUTE * 4 } as const;

/** The escape sequence that makes exactly this style, whatever was before. */
export function styleSequence(style: number, depth: ColourDepth): string {
  const codes = ['0'];
  const colour = style % ATTRIBUTE;
  const attributes = Math.floor(style / ATTRIBUTE);
  if (attributes % 2 === 1) codes.push('1');
  if (Math.floor(attributes / 4) % 2 === 1) codes.push('4');
  if (Math.floor(attributes / 2) % 2 === 1) codes.push('7');
  if (colour !== 0 && depth !== 'none') codes.push(depth === '256' ? `38;5;${PALETTE[colour]![0]}` : String(PALETTE[colour]![1]));
  return `\u001b[${codes.join(';')}m`;
}
