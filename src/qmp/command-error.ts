import { BlockError, messageOf } from '../base/errors.js';

/** QEMU's classes; all but GenericError are rare. */
export type QmpErrorClass = 'GenericError' | 'CommandNotFound' | 'DeviceNotActive' | 'DeviceNotFound' | 'KVMMissingCap';

/** What a command answers where it fails: class and sentence go to the client as they are. */
export class QmpCommandError extends BlockError {
  readonly errorClass: QmpErrorClass;

  constructor(errorClass: QmpErrorClass, description: string) {
    super('INVALID_ARGUMENT', description);
    this.name = 'QmpCommandError';
    this.errorClass = errorClass;
  }
}

/** The member `error` of a reply. */
export function errorReply(error: unknown): { readonly class: QmpErrorClass; readonly desc: string } {
  return { class: error instanceof QmpCommandError ? error.errorClass : 'GenericError', desc: messageOf(error) };
}
