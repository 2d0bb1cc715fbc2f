/**
 * The command `state import-connect`: the plan in words, and with --apply done. Imports: config, stores, tools.
 */
import type { CheckedConfig } from '../config/config.js';
import { openStateAccess } from '../stores/stores.js';
import { applyImport, lookAtConnect, type ImportLook, type ImportPlan } from '../tools/import-connect.js';
import { rangeText, table, wrap } from './text.js';

export interface ImportConnectOptions {
  readonly connectTable: string;
  readonly connectDatabase?: string;
  readonly connectGroup?: string;
  readonly overwrite?: boolean;
  readonly apply?: boolean;
  readonly json?: boolean;
}

export async function importConnect(config: CheckedConfig, options: ImportConnectOptions): Promise<number> {
  const { connectTable, connectDatabase, connectGroup, overwrite = false, apply = false, json = false } = options;
  const access = openStateAccess(config);
  try {
    const found = await lookAtConnect(
      config,
      access,
      { table: connectTable, database: connectDatabase, group: connectGroup, overwrite },
      Date.now(),
    );
    const isRefused = found.plans.some(({ refusal }) => refusal !== undefined);
    const isApplied = apply && !isRefused;
    // One partition that cannot be taken over leaves every state as it is: half an import is harder to mend.
    if (isApplied) await applyImport(access, found.plans, overwrite);
    console.log(
      json ? JSON.stringify(importJson(found, isApplied)) : importText(found, isApplied, connectGroup !== undefined),
    );
    return isRefused ? 5 : 0;
  } finally {
    await access.close();
  }
}

export function importText({ plans, ignored, look }: ImportLook, isApplied: boolean, isGroupChecked: boolean): string {
  const rows = plans.map((plan) => [
    plan.at.topic,
    String(plan.at.partition),
    phaseOf(plan),
    plan.row === undefined || plan.row.phase === 'NONE' ? '' : rangeText(plan.row),
    wordsOf(plan),
  ]);
  const text = table(
    [
      { title: 'topic' },
      { title: 'partition', align: 'right' },
      { title: 'connector' },
      { title: 'its range' },
      { title: 'becomes' },
    ],
    rows,
  );
  const isRefused = plans.some(({ refusal }) => refusal !== undefined);
  const inDoubt = plans.some(({ after }) => (after?.pending.length ?? 0) > 0);
  const notes = [
    ...(ignored.length === 0
      ? []
      : [
          'Ignored, since no route has the topic: ' +
            `${ignored.map(({ topic, partition }) => `${topic}/${partition}`).join(', ')}.`,
        ]),
    ...(isGroupChecked
      ? []
      : [
          'Whether the connector still runs was not looked at: give its group with --connect-group. It must be stopped.',
        ]),
    ...(inDoubt
      ? [
          'What is in doubt rests on the table still knowing the connector’s token: its dedup window must have ' +
            'been on while the connector ran, and import and run must follow soon after the connector ' +
            'stopped, since when it wrote its state is not known. To be certain, start the connector ' +
            'until its state is AFTER_PROCESSING, stop it, and import again.',
        ]
      : []),
  ];
  const end = isRefused
    ? 'Refused: nothing was changed.'
    : isApplied
      ? `Done. Start with: run; group ${look.group} goes on there.`
      : 'Nothing was changed. Add --apply to do it.';
  return [text, ...notes.map((note) => wrap(note)), end].join('\n\n');
}

function phaseOf({ row }: ImportPlan): string {
  return row?.phase ?? 'no row';
}

function wordsOf({ words, refusal }: ImportPlan): string {
  return wrap(refusal === undefined ? words.join('; ') : `REFUSED: ${refusal}`, { width: 60 });
}

function importJson({ plans, ignored, look }: ImportLook, isApplied: boolean): unknown {
  return {
    applied: isApplied,
    group: look.group,
    partitions: plans.map(({ at, row, after, words, refusal }) => ({
      topic: at.topic,
      partition: at.partition,
      connector: row ?? null,
      settled: after?.settled ?? null,
      inDoubt: after?.pending ?? [],
      words,
      refusal: refusal ?? null,
    })),
    ignored,
  };
}
