// A gateway before ClickHouse that can lose it: inserts are answered with 503, queries go through.
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';

export interface UnreliableGateway {
  readonly url: string;
  /** Inserts that were answered with 503. */
  refused: number;
  isAway: boolean;
}

/** Before ClickHouse: while it is away every insert is answered as a gateway does whose server is gone. */
export async function unreliableGateway(to: string): Promise<UnreliableGateway> {
  const state = { url: '', refused: 0, isAway: false };
  const server = createServer((incoming, outgoing) => {
    if (state.isAway && /INSERT/.test(decodeURIComponent(incoming.url ?? ''))) {
      state.refused += 1;
      incoming.resume().on('end', () => outgoing.writeHead(503).end('no server is available'));
      return;
    }
    const target = new URL(incoming.url ?? '/', to);
    const forward = request(target, { method: incoming.method, headers: incoming.headers, agent: false }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
      answer.pipe(outgoing);
    });
    forward.on('error', () => outgoing.destroy());
    incoming.pipe(forward);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return state;
}
