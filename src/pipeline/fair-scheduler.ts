/**
 * RxJS's timers, such that thousands that fall due together do not hold up the process: Node calls all timers that
 * are due before it looks at a socket. Knows nothing of the pipeline. Imports: rxjs.
 */
import { asyncScheduler, type SchedulerAction, type SchedulerLike, type Subscription } from 'rxjs';

/** Longer than this sockets, and timers of others, do not wait. */
const TURN_LIMIT_MS = 10;
/** Nor behind more actions: what each sets off in promises runs in the same turn, after it was measured. */
const ACTIONS_A_TURN = 32;

export interface FairSchedulerConfig {
  /** Where actions wait until they are due. @default asyncScheduler */
  readonly timers?: SchedulerLike;
  /** Calls the function when everybody else has had a turn. @default setImmediate */
  readonly nextTurn?: (go: () => void) => void;
  /** Milliseconds, of any origin. @default performance.now */
  readonly nowMs?: () => number;
}

/**
 * As `asyncScheduler`, but what is due is done for ten milliseconds, and 32 actions, at a time. Order is kept; an
 * action that is unsubscribed while it waits for its turn is not called.
 */
export function fairScheduler({
  timers = asyncScheduler,
  nextTurn = setImmediate,
  nowMs = () => performance.now(),
}: FairSchedulerConfig = {}): SchedulerLike {
  let due: (() => void)[] = [];
  let isWaiting = false;

  const goOn = (): void => {
    isWaiting = false;
    const going = due;
    due = [];
    let done = 0;
    try {
      for (const endMs = nowMs() + TURN_LIMIT_MS; done < Math.min(going.length, ACTIONS_A_TURN) && nowMs() < endMs;)
        going[done++]?.();
    } finally {
      // What throws ends its own action only.
      due = [...going.slice(done), ...due];
      if (due.length > 0) wait();
    }
  };
  const wait = (): void => {
    if (isWaiting) return;
    isWaiting = true;
    nextTurn(goOn);
  };

  return {
    now: () => timers.now(),
    schedule<T>(work: (this: SchedulerAction<T>, state?: T) => void, delay = 0, state?: T): Subscription {
      return timers.schedule<T>(
        function (this: SchedulerAction<T>, given?: T) {
          due.push(() => {
            if (!this.closed) work.call(this, given);
          });
          wait();
        },
        delay,
        state,
      );
    },
  };
}
