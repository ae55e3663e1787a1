/** The one piece of WebAssembly that the engine uses; lib.dom, which declares it, would bring a browser along. */
declare namespace WebAssembly {
  class Memory {
    constructor(descriptor: { initial: number; maximum: number; shared?: boolean });
    readonly buffer: ArrayBuffer;
  }
}
