import { useState } from 'react';
import type { KeyboardEvent } from 'react';

interface Options {
  count: number;
  onMove: (index: number) => void;
  onToggle: (index: number) => void;
  onOpen: (index: number) => void;
}

/** j and k or the arrows move, x selects, Enter opens. */
export function useListKeys(o: Options): {
  at: number;
  onKeyDown: (e: KeyboardEvent) => void;
} {
  const [chosen, setAt] = useState(-1);
  const at = Math.min(chosen, o.count - 1);
  const onKeyDown = (e: KeyboardEvent) => {
    // Keys in a row's own buttons belong to them.
    if (e.target !== e.currentTarget || e.ctrlKey || e.metaKey || e.altKey) return;
    const move = (to: number) => {
      const next = Math.max(0, Math.min(o.count - 1, to));
      setAt(next);
      o.onMove(next);
    };
    if (e.key === 'j' || e.key === 'ArrowDown') move(at + 1);
    else if (e.key === 'k' || e.key === 'ArrowUp') move(at - 1);
    else if (e.key === 'Home') move(0);
    else if (e.key === 'End') move(o.count - 1);
    else if (e.key === 'x' && at >= 0) o.onToggle(at);
    else if (e.key === 'Enter' && at >= 0) o.onOpen(at);
    else return;
    e.preventDefault();
  };
  return { at, onKeyDown };
}
