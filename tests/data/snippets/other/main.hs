module Main where

import qualified Data.Map as Map

count :: String -> Map.Map Char Int
count = foldr (\c m -> Map.insertWith (+) c 1 m) Map.empty

main :: IO ()
main = interact (show . count)
