// A proxy before a server that passes so many answers and then says no more: connections stay open, new ones are
// accepted, nothing is read. Knows nothing of the protocol: what the server sends at one go counts as an answer.
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

export interface SilencedServer {
  /** `host:port` to give to the client. */
  readonly address: string;
  /** Somebody waits for an answer that does not come. */
  readonly isSilenced: boolean;
  silence(): void;
  stop(): Promise<void>;
}

export async function silentAfter(to: string, answers = Infinity): Promise<SilencedServer> {
  const sockets = new Set<Socket>();
  const colon = to.lastIndexOf(':');
  const target = { host: to.slice(0, colon), port: Number(to.slice(colon + 1)) };
  let left = answers;
  let isAsked = false;
  const server = createServer((client) => {
    const behind = connect({ ...target, noDelay: true });
    for (const socket of [client, behind]) {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    }
    client.on('data', (bytes) => {
      if (left > 0) behind.write(bytes);
      else isAsked = true;
    });
    behind.on('data', (bytes) => {
      if (left <= 0) {
        // The rest of an answer: somebody waits for it.
        isAsked = true;
        return;
      }
      left -= 1;
      client.write(bytes);
    });
    client.on('close', () => behind.destroy());
    behind.on('close', () => left > 0 && client.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    get isSilenced() {
      return left <= 0 && isAsked;
    },
    silence: () => void (left = 0),
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
