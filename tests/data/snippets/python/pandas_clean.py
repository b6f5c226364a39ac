import pandas as pd
import numpy as np

df = pd.read_csv("sales.csv", parse_dates=["date"])
df["amount"] = df["amount"].fillna(0).astype(float)
monthly = df.groupby(df["date"].dt.to_period("M"))["amount"].agg(["sum", "mean"])
print(monthly.sort_values("sum", ascending=False).head())
