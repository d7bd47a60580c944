import { useRef } from 'react';
import { useDrawing } from './useDrawing';

interface Props {
  subscribe: (tell: () => void) => () => void;
  read: () => string;
  className?: string | undefined;
  /** For tests and style: marks what the number is. */
  name?: string;
}

/** A number that changes each second without React taking part. */
export function LiveText({ subscribe, read, className, name }: Props) {
  const ref = useRef<HTMLSpanElement>(null);
  useDrawing(ref, subscribe, () => {
    const next = read();
    if (ref.current && ref.current.textContent !== next) ref.current.textContent = next;
  });
  return <span ref={ref} className={className} data-live={name} />;
}
