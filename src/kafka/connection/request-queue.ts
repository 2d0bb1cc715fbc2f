/**
 * After every request kafkajs sets a timer to look at requests that wait, also when
 * none does: then with a delay far below zero, of which Node warns from version 24 on. Imports: Node.
 */
import { createRequire } from 'node:module';

interface RequestQueue {
  readonly pending: readonly unknown[];
  scheduleCheckPendingRequests: (this: RequestQueue) => void;
}

const calmed = new WeakSet<RequestQueue>();

/** From now on no queue sets that timer unless something waits. Once is enough, and done again it changes nothing. */
export function calmRequestQueues(): void {
  const { prototype: queue } = createRequire(import.meta.url)('kafkajs/src/network/requestQueue') as {
    readonly prototype: RequestQueue;
  };
  if (calmed.has(queue)) return;
  calmed.add(queue);
  const { scheduleCheckPendingRequests: schedule } = queue;
  queue.scheduleCheckPendingRequests = function (this: RequestQueue) {
    if (this.pending.length > 0) schedule.call(this);
  };
}
