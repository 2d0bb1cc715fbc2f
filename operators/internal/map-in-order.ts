/**
 * Room: a helper of the stages. `mergeMap` with a limit whose results come out in the order of the source.
 */
import { Observable, catchError, concatMap, defer, last, map, mergeMap, of, throwError, type ObservableInput, type OperatorFunction } from 'rxjs';

type Settled<R> = { readonly index: number; readonly value: R } | { readonly index: number; readonly error: unknown };

/**
 * Runs up to `concurrency` projections at once; emits their single values in the order of the source. An error comes
 * out in its turn too, the source's own as well: what was before it is finished and let through first. Only one that
 * `isUrgent` comes at once. A projection without a value is an error, since those behind it would wait for its turn.
 */
export function mapInOrder<T, R>(
  project: (value: T) => ObservableInput<R>,
  concurrency: number,
  isUrgent: (sourceError: unknown) => boolean = () => false,
): OperatorFunction<T, R> {
  return (source) =>
    new Observable<R>((subscriber) => {
      const early = new Map<number, Settled<R>>();
      let turn = 0;
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
                last(),
                map((result): Settled<R> => ({ index, value: result })),
                catchError((error: unknown) => of<Settled<R>>({ index, error })),
              ),
            concurrency,
          ),
          concatMap((settled) => {
            early.set(settled.index, settled);
            const ready: Settled<R>[] = [];
            for (let next = early.get(turn); next !== undefined; next = early.get(turn)) {
              ready.push(next);
              early.delete(turn);
              turn += 1;
            }
            return ready;
          }),
          concatMap((settled) => ('error' in settled ? throwError(() => settled.error) : of(settled.value))),
        )
        .subscribe(subscriber);
    });
}
