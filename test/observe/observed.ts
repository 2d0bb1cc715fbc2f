// An ingestion that is fed by hand.
import { IngestError } from '../../src/errors.js';
import type { Assignment } from '../../src/model/record.js';
import { Pauses } from '../../src/model/pauses.js';
import { Meter } from '../../src/observe/meter.js';
import { ingestStatus, type Observed } from '../../src/observe/status.js';
import type { SourceFacts } from '../../src/ports.js';

export const assignmentOf = (partition: number, more: Partial<Assignment> = {}): Assignment => ({
  topic: 'flights',
  partition,
  assignmentId: partition + 1,
  generation: 3,
  startOffset: 0,
  ...more,
});

export class ByHand {
  nowMs = 1_700_000_000_000;
  source: SourceFacts = { partitions: [] };
  readonly pauses = new Pauses();
  readonly meter = new Meter(() => this.nowMs);
  readonly observed: Observed = {
    status: () => ingestStatus({ meter: this.meter, source: this.source, pauses: this.pauses }),
    noted: () => this.meter.noted,
    listen: (listener) => this.meter.listen(listener),
  };

  assign(...partitions: number[]): this {
    for (const partition of partitions) this.meter.event({ kind: 'assigned', assignment: assignmentOf(partition) });
    return this;
  }

  deliver(partition: number, lastOffset: number, rows = 1): this {
    const assignment = assignmentOf(partition);
    this.meter.outcome({
      kind: 'delivered',
      assignment,
      afterOffset: lastOffset - rows,
      lastOffset,
      rows,
      bytes: rows * 100,
      replay: false,
    });
    return this;
  }

  halt(
    partition: number,
    error = new IngestError('KCR_SCHEMA', 'no such column', { hint: 'add it' }),
    healsInMs?: number,
  ) {
    const assignment = assignmentOf(partition);
    this.meter.outcome({ kind: 'halted', assignment, error, ...(healsInMs === undefined ? {} : { healsInMs }) });
    return this;
  }

  logEnds(...ends: number[]): this {
    this.source = {
      partitions: ends.map((logEnd, partition) => ({
        topic: 'flights',
        partition,
        logEnd,
        stableEnd: logEnd,
        isFull: false,
      })),
      budget: { bytes: 1000, usedBytes: 250 },
    };
    return this;
  }

  only(partition = 0) {
    return this.observed.status().partitions[partition]!;
  }
}
