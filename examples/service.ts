// The ingestion as a part of a service: started and stopped with it.
import { ingest, type IngestConfig } from 'kafka-clickhouse-rx';

export class Ingester {
  readonly #stop = new AbortController();
  #over: Promise<void> = Promise.resolve();

  /** `onFailure`: it cannot go on; end the service, so that whoever supervises it starts it again. */
  start(config: IngestConfig, onFailure: (error: unknown) => void): void {
    this.#over = ingest(config, { signal: this.#stop.signal }).forEach((outcome) => {
      // The other partitions go on.
      if (outcome.kind === 'halted') console.error(outcome.error.message);
    });
    this.#over.catch(onFailure);
  }

  /** Drains: what was taken is inserted, settled and committed. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#over;
  }
}
