import { NumberInput } from '@mantine/core';
import type { ReactNode } from 'react';

const GiB = 2 ** 30;

interface Props {
  label: string;
  description?: ReactNode;
  /** In bytes. */
  value: number;
  onChange: (bytes: number) => void;
  min: number;
  max?: number;
  step?: number;
  error?: ReactNode;
  disabled?: boolean;
}

/** A size in GiB; what goes in and out is bytes. */
export function SizeInput({ value, onChange, min, max, step = 1, ...rest }: Props) {
  return (
    <NumberInput
      {...rest}
      value={value / GiB}
      onChange={(x) => {
        const n = typeof x === 'number' ? x : Number.parseFloat(x);
        // Whole MiB: what the record accepts for memory and for volumes alike.
        if (Number.isFinite(n)) onChange(Math.round(n * 1024) * 2 ** 20);
      }}
      min={min / GiB}
      {...(max === undefined ? {} : { max: max / GiB })}
      step={step}
      decimalScale={3}
      suffix=" GiB"
      clampBehavior="blur"
    />
  );
}
