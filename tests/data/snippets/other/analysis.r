library(ggplot2)
df <- read.csv("data.csv")
model <- lm(y ~ x, data = df)
summary(model)
