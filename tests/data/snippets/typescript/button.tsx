import * as React from "react";

type Props = {
  label: string;
  disabled?: boolean;
  onPress: () => void;
};

export const Button: React.FC<Props> = ({ label, disabled = false, onPress }) => (
  <button className="btn" disabled={disabled} onClick={onPress}>
    {label}
  </button>
);
