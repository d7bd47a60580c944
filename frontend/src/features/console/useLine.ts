import { useEffect, useMemo, useState } from 'react';
import { useConnection } from '../../api/context';
import type { ConsoleChannel } from './channel';
import { Line } from './line';
import type { Kind, LineState } from './line';

/**
 * A console for as long as its component is shown. attach is given every new
 * connection; wake changes when trying again at once may help.
 */
export function useLine(
  vm: string,
  kind: Kind,
  attach: (channel: ConsoleChannel) => void,
  wake: string,
): { line: Line; state: LineState } {
  const connection = useConnection();
  const [state, tell] = useState<LineState>({ at: 'opening' });
  const line = useMemo(
    () => new Line(connection, vm, kind, { attach, tell }),
    [connection, vm, kind, attach],
  );
  useEffect(() => {
    line.open();
    return () => line.close();
  }, [line]);
  useEffect(() => line.wake(), [line, wake]);
  return { line, state };
}
