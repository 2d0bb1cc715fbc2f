/**
 * Where the status is served, as it is written. Pure. Imports: errors.
 */
import { IngestError } from '../errors.js';

/** What a kernel takes of a Unix socket's path: 104 on macOS, 108 on Linux, with the zero behind it. */
export const MAX_SOCKET_PATH_BYTES = 103;
export const DEFAULT_LISTEN = '127.0.0.1:9464';
/** `host:port`, `[::1]:port`, or `:port`, which is loopback. */
export const LISTEN = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/]*)):(\d{1,5})$/;

/** Throws `KCR_CONFIG` for anything else. */
export function listenAddress(listen: string): { readonly host: string; readonly port: number } {
  const parts = LISTEN.exec(listen);
  const port = Number(parts?.[3]);
  if (parts === null || port > 65_535) {
    throw new IngestError('KCR_CONFIG', `http.listen: expected host:port, got ${JSON.stringify(listen)}`, {
      hint: `for example "${DEFAULT_LISTEN}"`,
    });
  }
  const host = parts[1] ?? parts[2];
  return { host: host === undefined || host === '' ? '127.0.0.1' : host, port };
}
