import { useEffect, useRef } from 'react';
import type { RefObject } from 'react';

/**
 * Calls draw once at first, and then after each tell of the source, but only
 * while the element can be seen, and at most once per frame. Returns a function
 * that draws now.
 */
export function useDrawing(
  element: RefObject<HTMLElement | null>,
  subscribe: (tell: () => void) => () => void,
  draw: () => void,
): void {
  const latest = useRef(draw);
  useEffect(() => {
    latest.current = draw;
  });
  useEffect(() => {
    const el = element.current;
    if (!el) return;
    let seen = true;
    let due = true;
    let frame = 0;
    const run = () => {
      frame = 0;
      if (!due || !seen || document.hidden) return;
      due = false;
      latest.current();
    };
    const schedule = () => {
      due = true;
      if (frame === 0 && seen && !document.hidden) frame = requestAnimationFrame(run);
    };
    const watcher = new IntersectionObserver((entries) => {
      seen = entries.at(-1)?.isIntersecting ?? false;
      if (seen && due) schedule();
    });
    const shown = () => {
      if (due) schedule();
    };
    watcher.observe(el);
    document.addEventListener('visibilitychange', shown);
    const stop = subscribe(schedule);
    schedule();
    return () => {
      stop();
      watcher.disconnect();
      document.removeEventListener('visibilitychange', shown);
      cancelAnimationFrame(frame);
    };
  }, [element, subscribe]);
}
