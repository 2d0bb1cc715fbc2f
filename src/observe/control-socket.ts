/**
 * Status and control at a Unix socket that only its owner may open: no token, no port. Imports: Node, errors.
 */
import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { connect } from 'node:net';
import { isMainThread } from 'node:worker_threads';
import { IngestError } from '../errors.js';
import type { Controls } from './control.js';
import { answer, jsonPage, MAX_CONNECTIONS, REQUEST_LIMIT_MS, type Route } from './http.js';
import type { Observed } from './status.js';

export interface ControlSocket {
  readonly path: string;
  close(): Promise<void>;
}

/**
 * Listens at `path`, with mode 0600. A socket that nobody listens at any more is taken away first.
 *
 * @throws `KCR_CONFIG` where another process listens there, something else has that name, or it cannot be made.
 */
export async function serveControl(observed: Observed, controls: Controls, path: string): Promise<ControlSocket> {
  await clearSocketPath(path);
  const routes = new Map<string, Route>([
    ['/api/status', () => jsonPage({ ...observed.status(), notices: observed.noted() })],
  ]);
  const server = createServer(
    { requestTimeout: REQUEST_LIMIT_MS, headersTimeout: REQUEST_LIMIT_MS },
    // Whoever may open the socket may do what its owner may.
    (request, response) => answer(request, response, { routes, controls, refusal: () => undefined }),
  );
  server.maxConnections = MAX_CONNECTIONS;
  await listening(server, path);
  return {
    path,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

/** Takes a socket away that nobody listens at. @throws `KCR_CONFIG` as `serveControl` */
export async function clearSocketPath(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket())
    throw refused(path, 'there is something else by this name, no socket', 'name another path; nothing was taken away');
  const why = await new Promise<string | undefined>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => (probe.destroy(), resolve(undefined)));
    probe.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code ?? 'unknown'));
  });
  if (why === undefined)
    throw refused(path, 'another process listens there', 'give each process a socket of its own, or stop the other');
  // ENOENT: whoever left it has taken it away meanwhile.
  if (why === 'ENOENT') return;
  if (why !== 'ECONNREFUSED') throw refused(path, why, 'name a path that this user may use');
  unlinkSync(path);
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        refused(path, cause.code ?? cause.message, 'the directory must be there, and this user may write into it'),
      ),
    );
    // The socket is made before listen returns. In a worker thread the mask cannot be set, and the mode follows it.
    const before = isMainThread ? process.umask(0o177) : undefined;
    try {
      server.listen(path, () => {
        chmodSync(path, 0o600);
        resolve();
      });
    } finally {
      if (before !== undefined) process.umask(before);
    }
  });
}

function refused(path: string, why: string, hint: string): IngestError {
  return new IngestError('KCR_CONFIG', `control.socket: cannot listen at ${path}: ${why}`, { hint });
}
