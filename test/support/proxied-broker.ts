// A real broker of a test's own with two names: the source goes through the proxy, the test's own clients past it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { kafkaServer } from '../stack/kafka.js';
import { freePort, type ServerProcess } from '../stack/process.js';
import { TcpProxy } from './tcp-proxy.js';

export interface ProxiedBroker {
  readonly server: ServerProcess;
  readonly proxy: TcpProxy;
  /** Past the proxy. */
  readonly direct: string[];
  stop(): Promise<void>;
}

export async function startProxiedBroker(
  name: string,
  properties: Readonly<Record<string, string>> = {},
): Promise<ProxiedBroker> {
  const dir = mkdtempSync(join(tmpdir(), `kafka-${name}-`));
  const [proxied, plain] = [await freePort(), await freePort()];
  const server = await kafkaServer(dir, {
    listeners: [`DIRECT://127.0.0.1:${plain}`],
    properties: {
      ...properties,
      'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,DIRECT:PLAINTEXT',
      'advertised.listeners': `PLAINTEXT://127.0.0.1:${proxied},DIRECT://127.0.0.1:${plain}`,
    },
  });
  const proxy = await TcpProxy.start({ to: server.address, port: proxied });
  const stop = async (): Promise<void> => {
    await server.kill();
    await proxy.stop();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  };
  await server.start().catch(async (error: unknown) => {
    await stop();
    throw error;
  });
  return { server, proxy, direct: [`127.0.0.1:${plain}`], stop };
}
