/** What callers ask of a node and of an edge alike. */
import type { PipeBuffer } from '../base/pipe-buffer.js';
import { makeRequest, type BlockRequest, type IoClass } from './request.js';

/** The five verbs over `submit`. Buffers are lent until the promise settles; errors are rejections. */
export abstract class IoVerbs {
  abstract submit(request: BlockRequest): Promise<void>;

  read(offset: number, buffer: Uint8Array, ioClass?: IoClass, pipe?: PipeBuffer): Promise<void> {
    return this.submit(makeRequest('read', offset, buffer.byteLength, buffer, 0, ioClass, pipe));
  }

  write(offset: number, buffer: Uint8Array, flags = 0, ioClass?: IoClass, pipe?: PipeBuffer): Promise<void> {
    return this.submit(makeRequest('write', offset, buffer.byteLength, buffer, flags, ioClass, pipe));
  }

  writeZeroes(offset: number, bytes: number, flags = 0): Promise<void> {
    return this.submit(makeRequest('write-zeroes', offset, bytes, null, flags));
  }

  discard(offset: number, bytes: number): Promise<void> {
    return this.submit(makeRequest('discard', offset, bytes, null));
  }

  /** All writes completed before this call are on stable storage when it resolves. */
  flush(): Promise<void> {
    return this.submit(makeRequest('flush', 0, 0, null));
  }
}
