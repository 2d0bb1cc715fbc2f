/**
 * A configuration that is read again while the old one is at work: checked first, as at a start, and refused without
 * touching what runs. Imports: Node, cli/log, config, errors, observe, preflight.
 */
import { createServer } from 'node:net';
import type { CheckedConfig } from '../config/config.js';
import { IngestError, asIngestError } from '../errors.js';
import { clearSocketPath } from '../observe/control-socket.js';
import { DEFAULT_LISTEN, listenAddress } from '../observe/listen.js';
import { expectNoRefusal } from '../preflight/finding.js';
import { preflight } from '../preflight/preflight.js';
import { errorLine } from './log/lines.js';
import type { Log } from './log/log.js';

export interface ReloadConfig {
  readonly log: Log;
  /** The configuration as it stands now, checked. */
  readonly read: () => Promise<CheckedConfig>;
  /** Aborted when the program is to end: nothing is read or checked any more. */
  readonly stopping: AbortSignal;
}

export class Reload {
  readonly #config: ReloadConfig;
  #current: CheckedConfig | undefined;
  #drain: () => void = () => undefined;
  #next: CheckedConfig | undefined;
  #isReading = false;
  #isAsked = false;

  constructor(config: ReloadConfig) {
    this.#config = config;
  }

  /** This one is at work from now on; `drain` ends it. */
  begin(current: CheckedConfig, drain: () => void): void {
    this.#current = current;
    this.#drain = drain;
  }

  /** The configuration to go on with, once; undefined: none was read. */
  take(): CheckedConfig | undefined {
    const next = this.#next;
    this.#next = undefined;
    return next;
  }

  /** Never rejects. Asked again meanwhile, it reads once more: the file may have changed since it was read. */
  async ask(): Promise<void> {
    this.#isAsked = true;
    if (this.#isReading) return;
    this.#isReading = true;
    while (this.#isAsked && !this.#config.stopping.aborted) {
      this.#isAsked = false;
      await this.#read();
    }
    this.#isReading = false;
  }

  async #read(): Promise<void> {
    const { log, read, stopping } = this.#config;
    log.info({}, 'reading the configuration again');
    try {
      const config = await read();
      const findings = await preflight(config, { signal: stopping, records: 'start' });
      expectNoRefusal(findings, ({ what, detail, todo }) => log.warn({ what, todo }, detail));
      await expectAddresses(config, this.#current);
      if (stopping.aborted) return;
      this.#next = config;
      log.info({}, 'the new configuration is good: draining, then going on with it');
      this.#drain();
    } catch (thrown) {
      if (stopping.aborted) return;
      const error = asIngestError(thrown, 'KCR_INTERNAL', 'reading the configuration again failed');
      log.line(errorLine(error, 'the new configuration is refused, and the old one goes on'));
    }
  }
}

/** Where it will listen and does not yet must be free. */
async function expectAddresses({ http, control }: CheckedConfig, current: CheckedConfig | undefined): Promise<void> {
  if (control !== undefined && control.socket !== current?.control?.socket) await clearSocketPath(control.socket);
  if (http === undefined) return;
  const { listen = DEFAULT_LISTEN } = http;
  if (current?.http !== undefined && (current.http.listen ?? DEFAULT_LISTEN) === listen) return;
  const { host, port } = listenAddress(listen);
  await new Promise<void>((resolve, reject) => {
    const probe = createServer();
    probe.once('error', ({ code }: NodeJS.ErrnoException) =>
      reject(
        new IngestError('KCR_CONFIG', `http.listen: cannot listen at ${listen} (${code})`, {
          hint: 'take another address',
        }),
      ),
    );
    probe.listen(port, host, () => probe.close(() => resolve()));
  });
}
