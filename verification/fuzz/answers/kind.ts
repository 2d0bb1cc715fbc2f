// Answers: what servers send back, and what comes instead of it.
import type { Finding, Kind, KindOptions } from '../kind.js';
import { Random } from '../random.js';
import { brokerFault, decodeAsShipped, type AnswerSubject } from './broker.js';
import { anyStatus200, asShipped, ClickHouseAnswers } from './clickhouse.js';
import { cutAsShipped, frameFault, type FrameSubject } from './frames.js';

/** Broken on purpose: what is missing at the end reads as zeros. */
const decodePadded: AnswerSubject = {
  fetch: (payload, version) => decodeAsShipped.fetch(Buffer.concat([payload, Buffer.alloc(4096)]), version),
  metadata: (payload) => decodeAsShipped.metadata(Buffer.concat([payload, Buffer.alloc(4096)])),
};
/** Broken on purpose: a length of nothing is believed. */
const cutWithoutLimit: FrameSubject = (pieces) => ({ ...cutAsShipped(pieces), isBroken: false });

export async function openAnswers({ seed, control }: KindOptions): Promise<Kind> {
  const clickhouse = await ClickHouseAnswers.open(control ? anyStatus200 : asShipped);
  const [decode, cut] = control ? [decodePadded, cutWithoutLimit] : [decodeAsShipped, cutAsShipped];
  return {
    concurrency: 4,
    run: (caseNumber) => {
      const random = new Random(seed, 'answers', caseNumber);
      const shape = random.int(10);
      if (shape < 5) return inBase64(brokerFault(random, decode));
      if (shape < 8) return inBase64(frameFault(random, cut));
      return clickhouse.fault(random, caseNumber).then(({ what, input }) => (what === undefined ? undefined : { what, input }));
    },
    close: () => clickhouse.close(),
  };
}

function inBase64({ what, bytes }: { readonly what: string | undefined; readonly bytes: Buffer }): Finding | undefined {
  return what === undefined ? undefined : { what, input: `base64 ${bytes.toString('base64')}` };
}
