/**
 * A helper of the stages. `mergeMap` with a limit whose results come out in the order of the source. Imports: rxjs.
 */
import {
  EMPTY,
  Observable,
  catchError,
  concatMap,
  defer,
  endWith,
  map,
  mergeMap,
  of,
  throwError,
  throwIfEmpty,
  type ObservableInput,
  type OperatorFunction,
} from 'rxjs';

type Told<R> =
  | { readonly kind: 'value'; readonly value: R }
  | { readonly kind: 'over' }
  | { readonly kind: 'error'; readonly error: unknown };

/**
 * Runs up to `concurrency` projections at once; emits their values in the order of the source: those of the first at
 * once, those of the others when all before them are over. An error comes out in its turn too, the source's own as
 * well: what was before it is finished and let through first. Only one that `isUrgent` comes at once. A projection
 * without a value is an error, since whoever waits for it would wait for ever.
 */
export function mapInOrder<T, R>(
  project: (value: T) => ObservableInput<R>,
  concurrency: number,
  isUrgent: (sourceError: unknown) => boolean = () => false,
): OperatorFunction<T, R> {
  return (source) =>
    new Observable<R>((subscriber) => {
      const waiting = new Map<number, Told<R>[]>();
      let turn = 0;
      const inTurn = (index: number, told: Told<R>): readonly Told<R>[] => {
        if (index !== turn) {
          waiting.set(index, [...(waiting.get(index) ?? []), told]);
          return [];
        }
        const ready = [told];
        // Whoever is over lets the next one speak, who may be over as well.
        for (let last: Told<R> | undefined = told; last?.kind === 'over';) {
          turn += 1;
          const next: readonly Told<R>[] = waiting.get(turn) ?? [];
          waiting.delete(turn);
          ready.push(...next);
          last = next.at(-1);
        }
        return ready;
      };
      return source
        .pipe(
          map((value) => defer(() => project(value))),
          catchError((error: unknown): Observable<Observable<R>> => {
            const failed$: Observable<never> = throwError(() => error);
            return isUrgent(error) ? failed$ : of(failed$);
          }),
          mergeMap(
            (one$, index) =>
              one$.pipe(
                throwIfEmpty(),
                map((value): Told<R> => ({ kind: 'value', value })),
                endWith<Told<R>>({ kind: 'over' }),
                catchError((error: unknown) => of<Told<R>>({ kind: 'error', error })),
                concatMap((told) => inTurn(index, told)),
              ),
            concurrency,
          ),
          concatMap((told) =>
            told.kind === 'error' ? throwError(() => told.error) : told.kind === 'value' ? of(told.value) : EMPTY,
          ),
        )
        .subscribe(subscriber);
    });
}
