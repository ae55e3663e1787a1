/** Bytes of a terminal in raw mode, as names of keys. */

const SEQUENCES: Readonly<Record<string, string>> = {
  '[A': 'up', '[B': 'down', '[C': 'right', '[D': 'left', OA: 'up', OB: 'down', OC: 'right', OD: 'left', '[H': 'home', '[F': 'end', OH: 'home', OF: 'end',
  '[1~': 'home', '[4~': 'end', '[7~': 'home', '[8~': 'end', '[5~': 'page-up', '[6~': 'page-down', '[Z': 'shift-tab',
  '[1;2A': 'shift-up', '[1;2B': 'shift-down', '[1;2C': 'shift-right', '[1;2D': 'shift-left',
};
const CONTROL: Readonly<Record<string, string>> = {
  '\t': 'tab', '\r': 'enter', '\n': 'enter', '\u0003': 'ctrl-c', '\u001a': 'ctrl-z', '\f': 'ctrl-l', '\u007f': 'backspace', '\b': 'backspace', ' ': 'space',
};
const ESC = '\u001b';
/** A sequence after its ESC: `[` or `O`, parameters, a final byte. */
const SEQUENCE = /^(?:O[A-Za-z]|\[[0-9;?]*[ -/]*[@-~])/;
const BEGUN = /^(?:\[[0-9;?]*[ -/]*|O)?$/;
/** Nobody's key is longer. */
const LONGEST = 32;

/** Keeps what was cut off in the middle of a sequence until its rest comes; `flush` says that no rest comes. */
export class KeyDecoder {
  #kept = '';

  /** The names of the keys that are complete: letters as themselves, others as in `up`, `enter`, `escape`. Unknown sequences are nothing. */
  push(text: string): string[] {
    const keys: string[] = [];
    let rest = this.#kept + text;
    this.#kept = '';
    while (rest !== '') {
      const tail = rest.startsWith(ESC) ? rest.slice(1) : null;
      if (tail !== null && tail.length < LONGEST && BEGUN.test(tail)) {
        this.#kept = rest;
        break;
      }
      const [sequence] = tail === null ? [] : SEQUENCE.exec(tail) ?? [];
      rest = sequence === undefined ? takeCharacter(rest, keys) : rest.slice(1 + sequence.length);
      if (sequence !== undefined && SEQUENCES[sequence] !== undefined) keys.push(SEQUENCES[sequence]);
    }
    return keys;
  }

  /** Whether something is kept. */
  get isWaiting(): boolean {
    return this.#kept !== '';
  }

  /** An ESC that was the key itself. */
  flush(): string[] {
    const kept = this.#kept;
    this.#kept = '';
    return kept === '' ? [] : ['escape'];
  }
}

/** The rest. */
function takeCharacter(text: string, keys: string[]): string {
  const character = String.fromCodePoint(text.codePointAt(0)!);
  keys.push(character === ESC ? 'escape' : CONTROL[character] ?? character);
  return text.slice(character.length);
}
