// Room: one run with the sink that ships, over a simulated ClickHouse: as `play`, but a step at a time, since that sink
// waits for promises. Between two steps of virtual time every promise that can go on has gone on.
import { VirtualAction, VirtualTimeScheduler, from, retry, defer, timer } from 'rxjs';
import { setImmediate } from 'node:timers/promises';
import type { SimulatedTable } from '../../src/testing/index.js';
import { openShippedSink, SimulatedClickHouse, Tokens, type Tampering } from '../../src/testing/clickhouse/index.js';
import { endMs, stage, type Finding, type Played, type PlayOptions } from './play.js';
import type { Scenario, ServerPlan } from './scenario.js';

export interface ShippedOptions extends PlayOptions {
  /** Lines of the sink that ships are taken out, at its wire. */
  readonly tampering?: ((plan: { readonly blockRows: number }) => Tampering) | undefined;
}

/** Virtual time, of which a step is taken when nothing is left to do in the one before. */
export class SteppedClock extends VirtualTimeScheduler {
  /** False: too much was done for a run that ends. `isOver`: it need not come to its end. */
  async run(most: number, isOver: () => boolean = () => false): Promise<boolean> {
    for (let done = 0; done < most; done++) {
      if (isOver()) return true;
      const action = this.actions[0];
      if (action === undefined || (action as VirtualAction<unknown>).delay > this.maxFrames) return true;
      this.actions.shift();
      this.frame = (action as VirtualAction<unknown>).delay;
      const error: unknown = action.execute(action.state, action.delay);
      if (error !== undefined) throw error as Error;
      await setImmediate();
    }
    return false;
  }
}

const MOST_STEPS = 60_000;
/** A supervisor starts a program again that could not open its sink. */
const RESTART_MS = 40;
const MOST_RESTART_MS = 2_000;

export async function playShipped(
  scenario: Scenario & { readonly server: ServerPlan },
  options: ShippedOptions = {},
): Promise<Played> {
  const clock = new SteppedClock(VirtualAction, endMs);
  let server: SimulatedClickHouse | undefined;
  let tokens: Tokens | undefined;
  const { timeoutMs, profile, blockMs, restartMs, refuses } = scenario.server;
  const run = stage(scenario, options, clock, {
    tableDown: (ms) => server?.down(ms),
    openSink: (world, self, plan) => {
      tokens ??= new Tokens(world.table, world.watch);
      server ??= new SimulatedClickHouse(clock, world.table, tokens, { profile, blockMs, restartMs, refuses });
      const known = { server, tokens };
      const config = {
        timeoutMs,
        topic: world.log.topic,
        tampering: options.tampering?.(plan),
        options: plan.asyncInserts ? { insertMode: 'coalesced' as const, coalesceMs: scenario.coalesceMs } : {},
      };
      return defer(() => from(openShippedSink(self, known.server, known.tokens, world.watch, config))).pipe(
        retry({ delay: (_, count) => timer(Math.min(RESTART_MS * 2 ** (count - 1), MOST_RESTART_MS), self.scheduler) }),
      );
    },
  });
  if (scenario.server.isShared) shareTable(run.world.table, scenario);
  const played = run.judged(await clock.run(MOST_STEPS));
  const oddities = (server?.oddities ?? []).map((what): Finding => ({ kind: 'odd', what }));
  return { ...played, findings: [...played.findings, ...oddities] };
}

/** Another program's rows, which look like ours but for their topic. */
function shareTable(table: SimulatedTable, { records }: Scenario): void {
  records.forEach((count, partition) => {
    for (let offset = 0; offset < count + 8; offset++)
      table.rows.push({ topic: 'other', partition, offset, timestampMs: -1, value: null });
  });
}
