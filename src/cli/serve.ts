/**
 * Where a run tells of itself and can be told: over HTTP, at a Unix socket, to OpenTelemetry, as the configuration
 * asks. Imports: cli/log, config, observe, pipeline.
 */
import type { CheckedConfig } from '../config/config.js';
import type { Controls } from '../observe/control.js';
import { serveControl } from '../observe/control-socket.js';
import { serveStatus } from '../observe/http.js';
import { programRegistry, registerMetrics } from '../observe/metrics.js';
import { registerOpenTelemetry } from '../observe/open-telemetry.js';
import type { Ingestion } from '../pipeline/ingestion.js';
import type { Log } from './log/log.js';

export async function serveAsked(
  { http, control, openTelemetry, delivery, kafka }: CheckedConfig,
  ingestion: Ingestion,
  { log, controls }: { readonly log: Log; readonly controls: Controls },
): Promise<{ close(): Promise<void> }> {
  const info = { delivery, group: kafka.groupId };
  const open: { close(): Promise<void> }[] = [];
  const close = async () => void (await Promise.all(open.map((each) => each.close())));
  try {
    if (http !== undefined) {
      const { token, ...config } = http;
      const registry = programRegistry();
      registerMetrics(ingestion, { registry, info });
      const telling = token === undefined ? undefined : { token, controls };
      const server = await serveStatus(ingestion, { ...config, registry, control: telling });
      open.push(server);
      log.info({ url: server.url, control: token !== undefined }, 'status is served');
    }
    if (control !== undefined) {
      const server = await serveControl(ingestion, controls, control.socket);
      open.push(server);
      log.info({ socket: server.path }, 'control is served');
    }
    if (openTelemetry === true) {
      const stop = registerOpenTelemetry(ingestion, { info });
      open.push({ close: () => Promise.resolve(stop()) });
    }
    return { close };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}
