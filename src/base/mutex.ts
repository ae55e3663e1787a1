/** The engine's mutex: async-mutex, first come, first served. */
export { Mutex } from 'async-mutex';
